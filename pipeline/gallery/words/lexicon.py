"""The words of the gallery's annotators: feelings by emotion, and what each kind of motif does to a viewer.

No feeling word belongs to two emotions; details are clauses that follow the motif as their subject.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Feeling:
    """How people speak of one emotion. Every entry fits its slot in any sentence of `grammar`."""

    adjectives: tuple[str, ...]
    """The motif is, or looks, ..."""
    feels: tuple[str, ...]
    """I feel ..."""
    reactions: tuple[str, ...]
    """It makes me ..."""
    wishes: tuple[str, ...]
    """I want to ..."""
    likenesses: tuple[str, ...]
    """It reminds me of, or is like, ..."""


FEELINGS: dict[str, Feeling] = {
    "amusement": Feeling(
        ("funny", "silly", "goofy", "hilarious", "comical", "ridiculous", "cheeky", "playful"),
        ("amused", "tickled", "entertained", "like laughing", "in a joking mood"),
        ("laugh", "chuckle", "giggle", "smile", "laugh out loud", "grin from ear to ear"),
        ("laugh along", "tell a joke", "pull a funny face", "make my friends laugh", "play the fool"),
        ("a joke", "a clown", "a cartoon", "a prank", "a comedy show", "a silly story"),
    ),
    "awe": Feeling(
        ("majestic", "magnificent", "breathtaking", "mighty", "grand", "sublime", "glorious", "divine"),
        ("amazed", "humbled", "speechless", "full of wonder", "tiny in a huge world", "in awe"),
        ("marvel", "gasp in wonder", "stare in wonder", "lose my words", "believe in something greater"),
        ("kneel down in wonder", "gaze up forever", "whisper a prayer", "admire it in silence"),
        ("a miracle", "heaven", "the power of nature", "an ancient legend", "the greatness of the world"),
    ),
    "contentment": Feeling(
        ("cosy", "peaceful", "calm", "gentle", "serene", "homely", "tranquil", "comforting"),
        ("at ease", "relaxed", "at home", "safe and warm", "content", "at peace", "pleasantly sleepy"),
        ("relax", "breathe slowly", "unwind", "slow down", "feel at rest", "let go of my worries"),
        ("sit down and rest", "stay all day", "curl up nearby", "have a cup of tea", "take a nap"),
        (
            "home",
            "a lazy sunday",
            "my grandmother",
            "a warm blanket",
            "a quiet evening",
            "happy childhood days",
        ),
    ),
    "excitement": Feeling(
        ("thrilling", "lively", "exciting", "dazzling", "energetic", "vibrant", "adventurous", "festive"),
        ("excited", "thrilled", "eager", "full of energy", "alive", "ready for anything"),
        ("cheer", "jump for joy", "buzz with energy", "clap my hands", "tap my feet", "shout hooray"),
        ("join the party", "go on an adventure", "race along", "dance all night", "celebrate", "fly away"),
        ("a festival", "a race", "a party", "an adventure", "a holiday", "a summer fair"),
    ),
    "anger": Feeling(
        ("brutal", "cruel", "hostile", "violent", "furious", "vicious", "aggressive", "hateful"),
        ("angry", "furious inside", "outraged", "mad", "full of rage", "ready to fight"),
        ("clench my teeth", "boil inside", "burn with rage", "curse", "lose my temper", "demand justice"),
        ("shout in protest", "fight back", "smash something", "stamp my foot", "punish whoever did this"),
        ("war", "injustice", "hatred", "a bully", "a bitter quarrel", "oppression"),
    ),
    "disgust": Feeling(
        ("gross", "revolting", "filthy", "foul", "nasty", "sickening", "repulsive", "disgusting"),
        ("sick", "disgusted", "queasy", "nauseous", "repelled", "dirty"),
        ("gag", "hold my nose", "cringe", "lose my appetite", "retch", "wrinkle my nose"),
        ("wash my hands", "throw up", "turn away", "scrub everything clean", "open a window"),
        ("a sewer", "garbage", "spoiled food", "a disease", "vomit", "a bad smell"),
    ),
    "fear": Feeling(
        ("scary", "menacing", "frightening", "sinister", "threatening", "terrifying", "creepy", "eerie"),
        ("afraid", "scared", "terrified", "nervous", "in danger", "uneasy"),
        ("shiver", "tremble", "freeze in fright", "shudder", "panic", "look over my shoulder"),
        ("run away", "hide", "lock the door", "scream for help", "close my eyes"),
        ("a nightmare", "a horror story", "danger", "something evil", "the monsters under my bed"),
    ),
    "sadness": Feeling(
        ("sad", "mournful", "forlorn", "gloomy", "tragic", "desolate", "heartbreaking", "hopeless"),
        ("sorrowful", "heartbroken", "melancholy", "heavy with grief", "depressed", "down"),
        ("weep", "cry", "mourn", "grieve", "sigh with sorrow", "shed a tear"),
        ("cry quietly", "comfort somebody", "say goodbye", "bow my head", "hold back my tears"),
        ("a funeral", "loss", "a last goodbye", "someone i have lost", "loneliness", "days that are gone"),
    ),
}
"""Emotion -> its words."""

DETAILS: dict[tuple[str, str], tuple[str, ...]] = {
    ("jester", "amusement"): (
        "fools around for the crowd",
        "pulls such a funny face",
        "acts like a clown",
        "plays a prank on us",
    ),
    ("dancing bear", "amusement"): (
        "wobbles on two legs",
        "dances like my uncle at a wedding",
        "thinks it is a person",
        "shakes its big belly",
    ),
    ("monkey", "amusement"): (
        "makes faces at me",
        "is up to some mischief",
        "acts like a little clown",
        "has stolen somebody's lunch",
    ),
    ("goose", "amusement"): (
        "struts around like a boss",
        "waddles in such a funny way",
        "is so full of itself",
        "gossips with the others",
    ),
    ("mountain peak", "awe"): (
        "rises up into heaven",
        "towers over the whole world",
        "has stood there since time began",
        "touches the sky",
    ),
    ("cathedral", "awe"): (
        "reaches up to heaven",
        "was built by the faith of thousands",
        "rises above everything",
        "shines with holiness",
    ),
    ("waterfall", "awe"): (
        "pours down with endless power",
        "falls from heaven",
        "shows the power of nature",
        "roars down from the heights",
    ),
    ("comet", "awe"): (
        "crosses the endless sky",
        "comes from the depth of space",
        "lights up the heavens",
        "shows how vast the universe is",
    ),
    ("house", "contentment"): (
        "could be a place to live in",
        "waits with a warm fire",
        "has a kettle on the stove",
        "stands there in peace",
    ),
    ("feast table", "contentment"): (
        "is set for the whole family",
        "has plenty for everyone",
        "smells of fresh bread",
        "waits for good friends",
    ),
    ("cat", "contentment"): (
        "purrs in the warm light",
        "has not a care in the world",
        "rests without any worry",
        "makes itself comfortable",
    ),
    ("embracing couple", "contentment"): (
        "hold each other with love",
        "are happy together",
        "keep each other warm",
        "have found their peace",
    ),
    ("fireworks", "excitement"): (
        "explode all over the sky",
        "light up the night with energy",
        "start the celebration",
        "shoot up and sparkle",
    ),
    ("rider", "excitement"): (
        "rushes toward an adventure",
        "gallops like the wind",
        "races ahead of everyone",
        "can not wait to get there",
    ),
    ("sailboat", "excitement"): (
        "races over the waves",
        "sets off on an adventure",
        "flies before the wind",
        "cuts through the spray",
    ),
    ("balloon", "excitement"): (
        "takes off for the journey of a lifetime",
        "flies up and away",
        "lifts off toward adventure",
        "soars over the land",
    ),
    ("carousel", "excitement"): (
        "spins with music and lights",
        "whirls round and round",
        "makes me feel like a kid at the fair",
        "never stops turning",
    ),
    ("soldier", "anger"): (
        "attacks people who did nothing",
        "fights in another pointless war",
        "obeys a cruel order",
        "wants to hurt someone",
    ),
    ("fist", "anger"): (
        "is ready to strike a blow",
        "rises against injustice",
        "shakes with rage",
        "has had enough of being oppressed",
    ),
    ("bull", "anger"): (
        "is about to attack in rage",
        "has been provoked and tormented",
        "stamps with fury",
        "wants to trample someone",
    ),
    ("burning tower", "anger"): (
        "was set on fire out of hatred",
        "burns because of a senseless war",
        "is destroyed by cruel people",
        "shows what violence does",
    ),
    ("burning tower", "fear"): (
        "could collapse on everyone",
        "traps people in the flames",
        "may fall at any moment",
        "spreads fire and panic",
    ),
    ("rat", "disgust"): (
        "crawls out of the sewer",
        "carries all kinds of disease",
        "has been eating garbage",
        "leaves its dirt everywhere",
    ),
    ("rotten apple", "disgust"): (
        "is full of maggots",
        "smells like garbage",
        "oozes with decay",
        "has gone completely bad",
    ),
    ("slime", "disgust"): (
        "oozes all over the place",
        "drips like snot",
        "sticks to everything",
        "smells like a swamp",
    ),
    ("fish skeleton", "disgust"): (
        "stinks up the whole place",
        "has bits of rotten flesh on it",
        "lies there with all the flies",
        "smells awful",
    ),
    ("snake", "fear"): (
        "could bite me at any moment",
        "is about to attack its victim",
        "stares at me with cold eyes",
        "is full of poison",
    ),
    ("storm cloud", "fear"): (
        "will bring thunder and lightning",
        "is about to swallow everyone",
        "brings danger closer",
        "hangs over us like doom",
    ),
    ("ghost", "fear"): (
        "comes to haunt me at night",
        "floats toward me from the dark",
        "has risen from the dead",
        "follows me in the dark",
    ),
    ("wolf", "fear"): (
        "is hunting for its next victim",
        "shows its sharp teeth",
        "could attack at any moment",
        "waits for me in the dark",
    ),
    ("spider", "fear"): (
        "could crawl onto me",
        "waits for its victim",
        "moves on its long legs toward me",
        "could drop on my head",
    ),
    ("skull", "disgust"): (
        "still has a smell of decay",
        "has a mouth of rotten teeth",
        "was dug out of the dirt",
        "must be full of worms",
    ),
    ("skull", "fear"): (
        "stares at me with empty eyes",
        "warns me that death is near",
        "looks like a deadly warning",
        "haunts me in the dark",
    ),
    ("gravestone", "sadness"): (
        "stands for someone who died",
        "marks a life that ended too soon",
        "has been forgotten by everyone",
        "reminds us of those we lost",
    ),
    ("wilted flowers", "sadness"): (
        "are dying with nobody to care",
        "have lost all their life",
        "will never bloom again",
        "were left behind to die",
    ),
    ("lonely figure", "sadness"): (
        "has nobody in the world",
        "has lost someone",
        "was left all alone",
        "carries a heavy grief",
    ),
    ("empty chair", "sadness"): (
        "waits for someone who will not come back",
        "was left behind by its owner",
        "shows that somebody is gone",
        "stands there alone and forgotten",
    ),
    ("ruin", "awe"): (
        "has stood for a thousand years",
        "tells of a mighty empire",
        "outlived all its kings",
        "was built by giants",
    ),
    ("ruin", "sadness"): (
        "has lost all its former life",
        "was abandoned and forgotten",
        "shows that nothing lasts",
        "misses those who lived there",
    ),
}
"""(kind, emotion) -> clauses about the motif, for every pair of `world.EVOKES`."""
