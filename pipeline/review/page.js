"use strict";
/* One mask at a time. Everything that comes from data is set as text, never as HTML. */
const data = JSON.parse(document.getElementById("data").textContent);
const offline = Array.isArray(data.masks);
const at = (id) => document.getElementById(id);
const FILTERS = ["order", "show", "emotion", "style", "split", "flag"];
const VERDICT_KEYS = { 1: "good", 2: "wrong-place", 3: "too-big", 4: "not-visible", s: "skip" };
const canvas = at("canvas"), pen = canvas.getContext("2d");
const state = {
  queue: [], trail: [], place: -1, item: null, picture: null, maps: new Map(), busy: true,
  tool: null, edit: null, strokes: [], drag: null, pending: null, shown: 0,
};
const cache = new Map();
const narrow = () => window.matchMedia("(max-width: 820px)").matches;

/* ---- asking -------------------------------------------------------------------------------------- */

async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  };
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The review server does not answer. Start it again and open its new address; every verdict that was noted is kept.");
  }
  const values = await answer.json().catch(() => ({ error: `HTTP ${answer.status}` }));
  if (!answer.ok) throw new Error(values.error);
  return values;
}

function image(source) {
  return new Promise((done, failed) => {
    const picture = new Image();
    picture.onload = () => done(picture);
    picture.onerror = () => failed(new Error("A picture of this mask cannot be shown; see what the server prints."));
    picture.src = source;
  });
}

const name = ([key, emotion]) => `${key}.${emotion}`;
const query = (values) => new URLSearchParams(values).toString();
const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (n) => n.toString(16).padStart(2, "0")).join("");

function source(kind, item, number) {
  if (offline) return item.images[kind === "prediction" ? `prediction/${number}` : kind];
  const own = `${item.key}/${item.emotion}`;
  return { picture: `picture/${item.key}.jpg`, mask: `mask/${own}.png`, truth: `truth/${own}.png`, prediction: `prediction/${own}/${number}.png` }[kind];
}

/* An item with its picture and its mask, asked for once; `fresh` forgets what is known. */
function fetched(pair, fresh) {
  const id = `${at("by").value}/${name(pair)}`;
  if (fresh || !cache.has(id)) {
    const asked = (async () => {
      const item = offline ? data.masks.find((one) => name([one.key, one.emotion]) === name(pair))
        : await ask(`item?${query({ key: pair[0], emotion: pair[1], by: at("by").value })}`);
      const [picture, mask] = await Promise.all([image(source("picture", item)).catch(() => null), image(source("mask", item))]);
      return { item, picture, mask: values(mask) };
    })();
    asked.catch(() => cache.delete(id));
    cache.set(id, asked);
    if (cache.size > 40) cache.delete(cache.keys().next().value);
  }
  return cache.get(id);
}

/* Grey levels of a picture: {width, height, levels: Uint8Array}. */
function values(picture) {
  const board = document.createElement("canvas");
  board.width = picture.naturalWidth; board.height = picture.naturalHeight;
  const own = board.getContext("2d", { willReadFrequently: true });
  own.drawImage(picture, 0, 0);
  const rgba = own.getImageData(0, 0, board.width, board.height).data;
  const levels = new Uint8Array(board.width * board.height);
  for (let n = 0; n < levels.length; n++) levels[n] = rgba[4 * n];
  return { width: board.width, height: board.height, levels };
}

/* ---- which mask ---------------------------------------------------------------------------------- */

const filters = () => Object.fromEntries(FILTERS.map((field) => [field, at("filters").elements[field].value]));

function matches(item, wish) {
  return (!wish.emotion || item.emotion === wish.emotion) && (!wish.style || item.style === wish.style)
    && (!wish.split || item.split === wish.split) && (!wish.flag || item.flags.includes(wish.flag));
}

async function refill() {
  const wish = filters();
  if (offline) {
    state.queue = data.masks.filter((item) => matches(item, wish)).map((item) => [item.key, item.emotion]);
    at("progress").textContent = `${state.queue.length} of ${data.masks.length} masks`;
    return;
  }
  state.queue = (await progress()).masks;
}

/* How far this reviewer is, and the masks behind the last one. */
async function progress() {
  const last = state.trail.at(-1);
  const found = await ask(`queue?${query({ ...filters(), by: at("by").value.trim(), ...(last ? { after: name(last) } : {}) })}`);
  at("progress").textContent = `${found.total - found.todo} of ${found.total} judged by you`;
  return found;
}

async function restart(first) {
  state.trail = []; state.place = -1; state.queue = [];
  await guarded(async () => {
    await refill();
    if (first && await fetched(first).catch(() => null)) {  // where the page was before it was loaded again
      state.queue = [first, ...state.queue.filter((pair) => name(pair) !== name(first))];
    }
    await forward();
  });
}

async function forward() {
  if (state.place + 1 < state.trail.length) {
    state.place++;
  } else {
    if (!state.queue.length && !offline) await refill();
    const pair = state.queue.shift();
    if (!pair) return showNothing();
    state.trail.push(pair); state.place = state.trail.length - 1;
  }
  return show();
}

async function backward() {
  if (state.place <= 0) return undefined;
  state.place--;
  return show();
}

function showNothing() {
  if (state.item && state.trail.length && filters().show !== "todo") return say("That was the last one.");
  state.item = null; state.picture = null; dropEdit();
  canvas.width = 640; canvas.height = 240;
  canvas.setAttribute("aria-label", "No mask");
  for (const id of ["emotion", "painting", "flags", "mine", "utterances", "explanation"]) at(id).textContent = "";
  say("No mask is left for these filters.");
  remember();
  return undefined;
}

async function show(fresh) {
  const pair = state.trail[state.place];
  const { item, picture, mask } = await fetched(pair, fresh);
  state.item = item; state.picture = picture; state.shown = performance.now();
  state.maps = new Map([["mask", mask]]);
  dropEdit(); say("");
  canvas.width = picture ? picture.naturalWidth : mask.width; canvas.height = picture ? picture.naturalHeight : mask.height;
  if (!picture) say("The picture cannot be shown: its file is gone or damaged.");
  canvas.style.width = `min(100%, calc((100vh - ${narrow() ? 25 : 15}rem) * ${canvas.width / canvas.height}))`;
  describe(item);
  await chooseLayer("mask");
  remember();
  for (const next of [...state.trail.slice(state.place + 1), ...state.queue].slice(0, 3)) fetched(next).catch(() => {});
}

function describe(item) {
  at("emotion").textContent = item.emotion;
  at("painting").textContent = `${item.painting} · ${item.style} · ${item.split}`;
  const rank = item.own_rank === null ? "" : ` · own rank ${item.own_rank.toFixed(2)}`;
  at("flags").textContent = `${item.flags.length ? `flags: ${item.flags.join(", ")}` : "no flag"} · area ${(100 * item.area).toFixed(1)} %${rank}`;
  const before = item.review ? `Changed by review: ${item.review.action} (${item.review.verdict}). ` : "";
  at("mine").textContent = before + (item.mine ? `You said: ${item.mine}` : "");
  at("utterances").replaceChildren(...item.utterances.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  const layers = [["mask", "pseudo-mask"], ...(item.truth ? [["truth", "truth (APOLO)"]] : []),
    ...item.predictions.map((one, n) => [`prediction/${n}`, one.method])];
  at("layer").replaceChildren(...layers.map(([value, text]) => new Option(text, value)));
  canvas.setAttribute("aria-label", `${item.painting}: pseudo-mask of ${item.emotion}`);
  for (const button of document.querySelectorAll("[data-verdict]")) button.setAttribute("aria-pressed", String(button.dataset.verdict === item.mine));
  document.querySelector("[data-tool=box]").hidden = !item.sam;
}

async function chooseLayer(layer) {
  const item = state.item;
  if (!state.maps.has(layer)) {
    const [kind, number] = layer.split("/");
    state.maps.set(layer, values(await image(source(kind, item, number))));
  }
  if (item !== state.item) return;
  at("layer").value = layer;
  const found = /^prediction/.test(layer) ? item.predictions[Number(layer.split("/")[1])].text : "";
  at("explanation").textContent = found ? `Explanation: ${found}` : "";
  draw();
}

/* ---- drawing ------------------------------------------------------------------------------------- */

/* Which pixels of a map are inside: as the masks step counts them. */
function inside(map) {
  const above = Math.trunc(Number(at("threshold").value) * 255);
  return Uint8Array.from(map.levels, (level) => Number(level > above));
}

function draw() {
  if (!state.item) return;
  pen.fillStyle = "#8a847c"; pen.fillRect(0, 0, canvas.width, canvas.height);
  if (state.picture) pen.drawImage(state.picture, 0, 0);
  const map = state.maps.get(at("layer").value) || state.maps.get("mask");
  const lit = state.edit || inside(map);
  const { width, height } = state.edit ? state.maps.get("mask") : map;
  if (at("shade").checked || state.edit) {
    const board = document.createElement("canvas");
    board.width = width; board.height = height;
    const own = board.getContext("2d"), shade = own.createImageData(width, height);
    for (let y = 0, n = 0; y < height; y++) for (let x = 0; x < width; x++, n++) {
      const edge = lit[n] && (!x || !y || x + 1 === width || y + 1 === height || !lit[n - 1] || !lit[n + 1] || !lit[n - width] || !lit[n + width]);
      shade.data.set(edge ? (state.edit ? [255, 170, 0, 255] : [255, 255, 255, 255]) : [0, 0, 0, lit[n] ? 0 : 165], 4 * n);
    }
    own.putImageData(shade, 0, 0);
    pen.imageSmoothingEnabled = false;
    pen.drawImage(board, 0, 0, canvas.width, canvas.height);
    pen.imageSmoothingEnabled = true;
  }
  if (at("regions").checked) drawRegions();
  if (state.drag && state.tool === "box") {
    const [a, b] = [state.drag.from, state.drag.to];
    pen.lineWidth = 3; pen.strokeStyle = "#ffaa00";
    pen.strokeRect(a.x * canvas.width, a.y * canvas.height, (b.x - a.x) * canvas.width, (b.y - a.y) * canvas.height);
  }
}

function drawRegions() {
  const across = canvas.width / state.item.width, down = canvas.height / state.item.height;
  const size = Math.max(12, Math.round(canvas.width / 55));
  pen.font = `${size}px system-ui, sans-serif`; pen.textBaseline = "top";
  for (const { box, label, score } of [...state.item.regions].reverse()) {
    const [x, y] = [box[0] * across, box[1] * down];
    pen.lineWidth = 4; pen.strokeStyle = "#181614";
    pen.strokeRect(x, y, (box[2] - box[0]) * across, (box[3] - box[1]) * down);
    pen.lineWidth = 2; pen.strokeStyle = "#fffcf6";
    pen.strokeRect(x, y, (box[2] - box[0]) * across, (box[3] - box[1]) * down);
    const text = `${label} ${score.toFixed(2)}`;
    pen.fillStyle = "#181614"; pen.fillRect(x, y, pen.measureText(text).width + 6, size + 4);
    pen.fillStyle = "#fffcf6"; pen.fillText(text, x + 3, y + 2);
  }
}

/* ---- correcting ---------------------------------------------------------------------------------- */

function takeTool(tool) {
  state.tool = state.tool === tool ? null : tool;
  for (const button of document.querySelectorAll("[data-tool]")) button.setAttribute("aria-pressed", String(button.dataset.tool === state.tool));
  canvas.classList.toggle("drawing", state.tool !== null);
}

function beginEdit() {
  if (state.edit) state.strokes.push(state.edit.slice());
  else { state.edit = inside(state.maps.get("mask")); state.strokes = [null]; }
  if (state.strokes.length > 30) state.strokes.splice(1, 1);
  at("back-stroke").disabled = at("clear").disabled = false;
}

function backStroke() {
  if (!state.strokes.length) return;
  state.edit = state.strokes.pop();
  at("back-stroke").disabled = at("clear").disabled = state.edit === null;
  draw();
}

function dropEdit() {
  state.edit = null; state.strokes = []; state.drag = null; state.pending = null;
  at("back-stroke").disabled = at("clear").disabled = true;
}

const share = (event) => {
  const frame = canvas.getBoundingClientRect();
  const within = (value) => Math.min(1, Math.max(0, value));
  return { x: within((event.clientX - frame.left) / frame.width), y: within((event.clientY - frame.top) / frame.height) };
};

function dab(from, to) {
  const { width, height } = state.maps.get("mask"), radius = Number(at("size").value);
  const steps = Math.max(1, Math.ceil(Math.hypot((to.x - from.x) * width, (to.y - from.y) * height) / Math.max(1, radius / 2)));
  for (let step = 0; step <= steps; step++) {
    const x = (from.x + (to.x - from.x) * step / steps) * width, y = (from.y + (to.y - from.y) * step / steps) * height;
    for (let row = Math.max(0, Math.floor(y - radius)); row < Math.min(height, y + radius); row++)
      for (let column = Math.max(0, Math.floor(x - radius)); column < Math.min(width, x + radius); column++)
        if ((column + .5 - x) ** 2 + (row + .5 - y) ** 2 <= radius ** 2) state.edit[row * width + column] = Number(state.tool === "brush");
  }
}

canvas.addEventListener("pointerdown", (event) => {
  if (offline || !state.tool || !state.item || state.busy || event.button) return;
  canvas.setPointerCapture(event.pointerId);
  state.drag = { from: share(event), to: share(event) };
  if (state.tool !== "box") { beginEdit(); dab(state.drag.from, state.drag.to); }
  draw();
});
canvas.addEventListener("pointermove", (event) => {
  if (!state.drag) return;
  const from = state.drag.to;
  state.drag.to = share(event);
  if (state.tool !== "box") dab(from, state.drag.to);
  draw();
});
canvas.addEventListener("pointerup", () => {
  const drag = state.drag;
  state.drag = null;
  if (drag && state.tool === "box") guarded(() => askSam(drag));
});
canvas.addEventListener("pointercancel", () => { state.drag = null; draw(); });

async function askSam({ from, to }) {
  const box = [Math.min(from.x, to.x), Math.min(from.y, to.y), Math.max(from.x, to.x), Math.max(from.y, to.y)];
  say("SAM is asked …");
  const { counts } = await ask("box", { key: state.item.key, emotion: state.item.emotion, box });
  beginEdit();
  let n = 0;
  state.edit = new Uint8Array(state.edit.length);
  counts.forEach((count, place) => { state.edit.fill(place % 2, n, n + count); n += count; });
  say(state.edit.includes(1) ? "" : "SAM marks nothing in that box.");
  draw();
}

/* Run lengths row by row, zeros first. */
function counts(mask) {
  const found = [];
  let value = 0, length = 0;
  for (const pixel of mask) {
    if (pixel === value) length++;
    else { found.push(length); value = pixel; length = 1; }
  }
  return [...found, length];
}

/* ---- judging ------------------------------------------------------------------------------------- */

async function judge(verdict) {
  const item = state.item;
  if (offline || !item) return;
  if (!at("by").value.trim()) { at("by").focus(); throw new Error("Who are you? Fill in the reviewer's name."); }
  if (state.edit && (verdict === "good" || verdict === "skip")) throw new Error("You corrected this mask: say what was wrong with it (2 or 3), or discard the correction (Esc).");
  if (!state.pending || state.pending.verdict !== verdict) state.pending = { id: newId(), verdict };
  await ask("verdict", {
    ...state.pending, key: item.key, emotion: item.emotion, mask: item.mask, by: at("by").value.trim(),
    order: filters().order, ...(state.edit ? { corrected: counts(state.edit) } : {}),
  });
  cache.delete(`${at("by").value}/${name([item.key, item.emotion])}`);
  numbersSoon();
  await forward();
  await progress();
}

async function undo() {
  if (offline) return;
  const back = await ask("undo", { id: newId(), by: at("by").value.trim() });
  if (!back.key) { say("There is nothing to undo."); return; }
  const pair = [back.key, back.emotion];
  const place = state.trail.findIndex((one) => name(one) === name(pair));
  if (place >= 0) state.place = place;
  else { state.trail.splice(Math.max(0, state.place), 0, pair); state.place = Math.max(0, state.place); }
  numbersSoon();
  await show(true);
  say("Taken back.");
  await progress();
}

/* ---- numbers ------------------------------------------------------------------------------------- */

let numbersTimer = 0;
function numbersSoon() {
  clearTimeout(numbersTimer);
  numbersTimer = setTimeout(numbers, 400);
}

async function numbers() {
  const found = offline ? data.statistics : await ask("statistics").catch(() => null);
  if (!found) return;
  const who = Object.entries(found.reviewers).map(([by, count]) => `${by} ${count}`).join(", ") || "nobody yet";
  const { alpha, masks, why } = found.agreement;
  const bad = found.bad_lines ? ` ${found.bad_lines} lines of the files are no verdicts.` : "";
  at("agreement").textContent = `${found.verdicts} verdicts (${who}). Krippendorff's alpha ${alpha === null ? `is not known: ${why}` : `${alpha.toFixed(3)} over ${masks} masks`}.${bad}`;
  at("precision").replaceChildren(...Object.entries(found.precision).filter(([, row]) => row.judged).map(([group, row]) => {
    const line = document.createElement("tr");
    const cells = [group, row.good, row.judged, `${(100 * row.precision).toFixed(1)} %`, `${(100 * row.low).toFixed(1)}–${(100 * row.high).toFixed(1)} %`];
    line.append(...cells.map((text, n) => Object.assign(document.createElement(n ? "td" : "th"), { textContent: text })));
    return line;
  }));
}

/* ---- the page ------------------------------------------------------------------------------------ */

function say(text) {
  at("message").textContent = text;
  at("message").hidden = !text;
}

/* One thing at a time; what fails is said, and nothing moves on. */
async function guarded(action) {
  state.busy = true;
  document.body.setAttribute("aria-busy", "true");
  try {
    await action();
  } catch (error) {
    say(error.message);
  } finally {
    state.busy = false;
    document.body.setAttribute("aria-busy", "false");
  }
}

const once = (action) => { if (!state.busy) guarded(action); };

/* The address keeps who judges, what is shown and where: a reload goes on there. */
function remember() {
  const values = { by: at("by").value, ...filters(), ...(state.item ? { at: name([state.item.key, state.item.emotion]) } : {}) };
  history.replaceState(null, "", `#${query(values)}`);
}

function toggle(id) { at(id).checked = !at(id).checked; draw(); }

function nextLayer(kind) {
  const options = Array.from(at("layer").options, (option) => option.value);
  const wanted = options.filter((value) => value.startsWith(kind));
  if (!wanted.length || !state.item) return;
  const now = wanted.indexOf(at("layer").value);
  guarded(() => chooseLayer(now + 1 < wanted.length ? wanted[now + 1] : "mask"));
}

const KEYS = {
  u: () => once(undo), m: () => toggle("shade"), g: () => toggle("regions"), t: () => nextLayer("truth"), p: () => nextLayer("prediction"),
  b: () => takeTool("brush"), e: () => takeTool("eraser"), x: () => state.item && state.item.sam && takeTool("box"),
  z: backStroke, escape: () => { dropEdit(); draw(); }, arrowleft: () => once(backward), arrowright: () => once(forward),
};

document.addEventListener("keydown", (event) => {
  const target = event.target;
  const typing = target.tagName === "SELECT" || (target.tagName === "INPUT" && !["checkbox", "range"].includes(target.type));
  const key = event.key.toLowerCase();
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (target.type === "range" && key.startsWith("arrow")) return;
  if (!offline && VERDICT_KEYS[key]) {
    event.preventDefault();
    if (!event.repeat) once(() => judge(VERDICT_KEYS[key]));
  } else if (KEYS[key] && (!offline || !"ubexz".includes(key))) {
    event.preventDefault();
    if (!event.repeat || key.startsWith("arrow")) KEYS[key]();
  }
});

function fill() {
  const fields = at("filters").elements, kept = new URLSearchParams(location.hash.slice(1));
  fields.show.replaceChildren(...Object.entries(data.start.show).map(([value, text]) => new Option(text, value)));
  for (const field of ["emotion", "style", "split", "flag"]) {
    fields[field].replaceChildren(new Option("any", ""), ...data.start.choices[field].map((value) => new Option(value, value)));
  }
  for (const field of FILTERS) if (Array.from(fields[field].options).some((option) => option.value === kept.get(field))) fields[field].value = kept.get(field);
  at("by").value = kept.get("by") ?? data.start.by;
  const place = (kept.get("at") || "").split(".");
  return place.length === 2 ? place : null;
}

document.addEventListener("change", (event) => { if (event.target.tagName === "SELECT") event.target.blur(); });  // keys judge again
at("filters").addEventListener("change", () => restart());
at("filters").addEventListener("submit", (event) => event.preventDefault());
at("by").addEventListener("keydown", (event) => { if (event.key === "Enter") at("by").blur(); });
at("threshold").addEventListener("input", () => { at("threshold-value").textContent = Number(at("threshold").value).toFixed(2); draw(); });
at("layer").addEventListener("change", () => guarded(() => chooseLayer(at("layer").value)));
for (const id of ["shade", "regions"]) at(id).addEventListener("change", draw);
for (const button of document.querySelectorAll("[data-verdict]")) button.addEventListener("click", () => once(() => judge(button.dataset.verdict)));
for (const button of document.querySelectorAll("[data-tool]")) button.addEventListener("click", () => takeTool(button.dataset.tool));
at("undo").addEventListener("click", () => once(undo));
at("back-stroke").addEventListener("click", backStroke);
at("clear").addEventListener("click", KEYS.escape);
at("previous").addEventListener("click", () => once(backward));
at("next").addEventListener("click", () => once(forward));
at("numbers").addEventListener("toggle", numbers);
document.body.classList.toggle("offline", offline);
at("choose").open = !narrow();
restart(fill());
numbers();
