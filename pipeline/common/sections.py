"""All that a params file may hold: the one list of its sections."""

SECTIONS = {
    "paths": "pipeline.common.params:Paths",
    "backbones": "pipeline.backbones.params:BackbonesParams",
    "parallel": "pipeline.parallel.map_shards:ParallelParams",
    "gallery": "pipeline.gallery.world:GalleryParams",
    "utterances": "pipeline.utterances.params:UtterancesParams",
    "regions": "pipeline.regions.params:RegionsParams",
    "similarity": "pipeline.similarity.params:SimilarityParams",
    "features": "pipeline.features.params:FeaturesParams",
    "masks": "pipeline.masks.recipe:MasksParams",
    "relabel": "model.relabel.params:RelabelParams",
    "shards": "pipeline.shards.step:ShardsParams",
    "shard_stats": "pipeline.shard_stats.labels:ShardStatsParams",
    "plan": "pipeline.plan.plan:PlanParams",
    "train": "model.train.params:TrainParams",
    "predict": "model.predict.params:PredictParams",
    "alignment": "model.alignment.step:AlignmentParams",
    "baselines": "model.baselines.params:BaselinesParams",
    "score": "model.score.params:ScoreParams",
    "label_card": "model.label_card.sweep:LabelCardParams",
    "ablations": "model.train.ablations:AblationsParams",
    "report": "model.report.step:ReportParams",
    "pretrain": "model.pretrain.tiny:PretrainParams",
    "bench": "model.bench.factory:BenchParams",
}
"""Section -> the dataclass that reads it, as MODULE:CLASS, so that naming it imports nothing."""
