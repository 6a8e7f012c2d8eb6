/**
 * Draws a state machine, and highlights its states as the execution progresses.
 *
 * The API returns a `column` and a `row` for each state. The column is the distance from the start.
 * The picture runs from left to right on a wide page, and from top to bottom on a narrow page.
 * States reached only after a failure stay hidden until a state fails or the user asks to see them.
 */
import { button, h, isChanged, keyed, put, s } from "./dom.js";
import { counted, duration, now } from "./format.js";

const narrow = matchMedia("(max-width: 46rem)");
// The sizes of a state and of the gaps between states, in pixels.
const WIDTH = 134;
const HEIGHT = 48;
const GAP = 26;
const GAP_WITH_NAME = 42;
// The margins of the frame of a Parallel or Map state. Its name is in the top margin.
const FRAME = { side: 9, top: 24, bottom: 9 };
const EDGE = 12;
const BEND = 8;

const WORDS = {
  waiting: "not started",
  running: "running",
  succeeded: "done",
  failed: "failed",
  caught: "failed",
  skipped: "not needed",
};
const CROSS = "M-3-3 3 3M3-3-3 3";
const MARKS = { succeeded: "M-4 0-1 3 4-3", failed: CROSS, caught: CROSS };

const least = (boxes, side) => Math.min(...boxes.map((each) => each[side]));
const most = (boxes, side) => Math.max(...boxes.map((each) => each[side]));
const isReached = (state) => !["waiting", "skipped"].includes(state.status);
const isFrame = (state) => ["parallel", "map"].includes(state.kind);
const isShownAsStep = (state) => isReached(state) && !isFrame(state);

/** Returns the name of a state as words, such as "Read inventory" for `ReadInventory`. */
const nameOf = ({ name }) =>
  name[0] + name.slice(1).replace(/([a-z])([A-Z])/g, (_, last, first) => `${last} ${first.toLowerCase()}`);

/** Returns the progress of a state, such as `done, 1.2 s, 3 tries`. */
function progressOf({ status, startedAt, finishedAt, tries }) {
  const end = status === "running" ? now() : Date.parse(finishedAt);
  const took = startedAt && end ? duration(end - Date.parse(startedAt), status === "running" ? 0 : 1) : "";
  return [WORDS[status], took, tries > 1 && counted(tries, "try", "tries")].filter(Boolean).join(", ");
}

const byName = (states) => new Map(states.map((state) => [state.name, state]));

/** Returns the names of the states that the execution reaches if nothing fails. */
function mainPath(states) {
  const named = byName(states);
  const { name: first } = states.find((state) => state.column === 0 && state.row === 0 && !state.parent);
  const reached = new Set([first]);
  // The loop also visits the names that it adds.
  for (const name of reached) named.get(name).next.forEach((next) => reached.add(next));
  for (const { name, parent } of states) if (reached.has(parent)) reached.add(name);
  return reached;
}

export class MachinePicture {
  #states = [];
  #showsFailures = false;
  #drawn = "";
  #nodes = new Map();
  #edges = [];

  constructor() {
    this.svg = s("svg", { role: "img" });
    const turn = () => {
      this.#showsFailures = !this.#showsFailures;
      this.#draw();
    };
    this.toggle = button("", turn, "quiet");
    this.steps = h("ol");
    // A picture that is wider than the page can be scrolled with the mouse or the keyboard.
    const attributes = { tabindex: "0", role: "group", "aria-label": "Picture of the steps" };
    const scroller = h("div.scroller", attributes, this.svg);
    this.element = h("div.machine", scroller, this.toggle, h("details", h("summary", "Step by step"), this.steps));
    // Only the last picture is on the page.
    narrow.onchange = () => this.#states.length && this.#draw();
  }

  update({ states }) {
    this.#states = states;
    this.#draw();
    const steps = states.filter(isShownAsStep);
    steps.sort((one, other) => Date.parse(one.startedAt) - Date.parse(other.startedAt));
    const makeStep = () => h("li");
    keyed(this.steps, steps, ({ name }) => name, makeStep, showStep);
  }

  #draw() {
    const main = mainPath(this.#states);
    const failed = this.#states.some((state) => !main.has(state.name) && isReached(state));
    this.toggle.hidden = failed || main.size === this.#states.length;
    this.toggle.textContent = `${this.#showsFailures ? "Hide" : "Show"} the failure path`;
    const shown = this.#states.filter((state) => main.has(state.name) || failed || this.#showsFailures);
    const drawn = JSON.stringify([narrow.matches, shown.map((state) => [state.name, state.column, state.row])]);
    if (drawn !== this.#drawn) this.#layOut(shown);
    this.#drawn = drawn;
    this.#light();
  }

  #layOut(shown) {
    const isDown = narrow.matches;
    const box = ({ column, row }) => {
      const [right, down] = isDown ? [row, column] : [column, row];
      const left = EDGE + FRAME.side + right * (WIDTH + GAP);
      const top = EDGE + FRAME.top + down * (HEIGHT + GAP_WITH_NAME);
      return { left, top, right: left + WIDTH, bottom: top + HEIGHT, x: left + WIDTH / 2, y: top + HEIGHT / 2 };
    };
    const boxes = new Map(shown.map((state) => [state.name, box(state)]));
    for (const frame of shown.filter(isFrame)) {
      const within = shown.filter((state) => state.parent === frame.name).map(box);
      boxes.set(frame.name, {
        ...boxes.get(frame.name),
        left: least(within, "left") - FRAME.side,
        top: least(within, "top") - FRAME.top,
        right: most(within, "right") + FRAME.side,
        bottom: most(within, "bottom") + FRAME.bottom,
      });
    }
    const [width, height] = ["right", "bottom"].map((side) => most([...boxes.values()], side) + EDGE + 2 * BEND);

    this.#edges = shown.flatMap((state) =>
      ["next", "catch"].flatMap((kind) =>
        state[kind]
          .filter((to) => boxes.has(to))
          .map((to) => {
            const d = pathBetween(boxes.get(state.name), boxes.get(to), kind, isDown);
            return { from: state.name, to, kind, path: s("path", { d, class: kind, "marker-end": "url(#arrow)" }) };
          }),
      ),
    );
    this.#nodes = new Map(shown.map((state) => [state.name, drawState(state, boxes.get(state.name))]));
    const arrow = s(
      "marker",
      { id: "arrow", viewBox: "0 0 8 8", refX: "7", refY: "4", markerWidth: "7", markerHeight: "7", orient: "auto" },
      s("path", { d: "M1 1l6 3-6 3" }),
    );
    const [frames, others] = [true, false].map((wanted) =>
      shown.filter((state) => isFrame(state) === wanted).map((state) => this.#nodes.get(state.name)),
    );
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    // The picture shrinks with the page, but only while its text remains large enough to read.
    this.svg.style.width = `${width}px`;
    this.svg.style.minWidth = `${width * (isDown ? 0.95 : 0.78)}px`;
    put(
      this.svg,
      s("defs", arrow),
      frames,
      this.#edges.map(({ path }) => path),
      others,
    );
  }

  #light() {
    const named = byName(this.#states);
    for (const [name, node] of this.#nodes) {
      const state = named.get(name);
      node.setAttribute("class", `${isFrame(state) ? "frame" : "state"} ${state.kind} ${state.status}`);
      node.querySelector(".mark")?.setAttribute("d", MARKS[state.status] ?? "");
      // The color and the mark of a state already say that it is done.
      const text = state.status === "waiting" ? "" : progressOf(state).replace("done, ", "");
      const title = [`${nameOf(state)} ${text.split(",")[0]}`, 21, 128];
      fit(node.querySelector(".took"), ...(isFrame(state) ? title : [text]));
    }
    for (const { from, to, kind, path } of this.#edges) {
      const leaves = kind === "catch" ? ["caught", "failed"] : ["succeeded"];
      path.classList.toggle("taken", isReached(named.get(to)) && leaves.includes(named.get(from).status));
    }
    const steps = this.#states.filter(isShownAsStep).map((state) => `${nameOf(state)}: ${progressOf(state)}`);
    this.svg.ariaLabel = steps.length ? `The steps so far. ${steps.join("; ")}.` : "No step has started yet.";
  }
}

function drawState(state, box) {
  const [x, y, width, height] = [box.left, box.top, box.right - box.left, box.bottom - box.top];
  if (isFrame(state)) {
    return s("g", s("rect", { x, y, width, height, rx: 14 }), s("text.took", { x: x + 12, y: y + 16 }));
  }
  const middle = y + height / 2;
  return s(
    "g",
    s("rect", { x, y, width, height, rx: state.kind === "choice" ? height / 2 : 10 }),
    s("circle.light", { cx: x + 17, cy: middle, r: 8 }),
    s("g", { transform: `translate(${x + 17} ${middle})` }, s("path.mark")),
    s("circle.around", { cx: x + 17, cy: middle, r: 8, pathLength: 100 }),
    fit(s("text", { x: x + 32, y: middle - 3 }), nameOf(state)),
    s("text.took", { x: x + 32, y: middle + 14 }),
  );
}

/** Sets a text, and compresses it to `width` if it has more than `most` characters. */
function fit(element, text, most = 14, width = WIDTH - 40) {
  element.textContent = text;
  if (text.length > most) {
    element.setAttribute("textLength", width);
    element.setAttribute("lengthAdjust", "spacingAndGlyphs");
  } else element.removeAttribute("textLength");
  return element;
}

/** Returns the line between two boxes. If the boxes are in different rows, the line has rounded right-angle turns. */
function pathBetween(from, to, kind, isDown) {
  // These names select the coordinates of a box along and across the direction of the picture.
  const [middle, lane, begin, end, far, near] = isDown
    ? ["y", "x", "top", "bottom", "right", "left"]
    : ["x", "y", "left", "right", "bottom", "top"];
  let points;
  if (kind === "catch") {
    points = cornersFrom([from[middle], from[far]], 1, to[near] - 12, to[middle], to[near]);
  } else if (to[begin] < from[begin]) {
    // A line back to an earlier state goes around both boxes, and past the boxes of the rows between them.
    const detour = Math.max(from[far], to[far]) + 14;
    const past = from[near] - to[far] > HEIGHT ? [to[end] + GAP / 2, to[far] + 14] : [];
    points = cornersFrom([from[middle], from[far]], 1, detour, ...past, to[middle], to[far]);
  } else {
    // Lines to a later row turn near their start, and all other lines turn near their end.
    const turn = to[lane] > from[lane] ? from[end] + GAP / 2 : to[begin] - GAP / 2;
    points = cornersFrom([from[end], from[lane]], 0, turn, to[lane], to[begin]);
  }
  return rounded(points.map(([along, across]) => (isDown ? [across, along] : [along, across])));
}

/** Returns the corners of a line with right angles. Turns alternately change both coordinates, starting at `axis`. */
function cornersFrom(start, axis, ...turns) {
  const corners = [start];
  turns.forEach((turn, index) => corners.push(corners[index].with((axis + index) % 2, turn)));
  return corners;
}

function rounded(points) {
  const corners = points.filter((point, index) => `${point}` !== `${points[index - 1]}`);
  const toward = ([x, y], [x2, y2]) => {
    const length = Math.hypot(x2 - x, y2 - y);
    const part = Math.min(BEND, length / 2) / length;
    return `${x + (x2 - x) * part} ${y + (y2 - y) * part}`;
  };
  const bend = (point, index) =>
    `L${toward(point, corners[index])}Q${point.join(" ")} ${toward(point, corners[index + 2])}`;
  const inner = corners.slice(1, -1).map(bend);
  return `M${corners[0].join(" ")}${inner.join("")}L${corners.at(-1).join(" ")}`;
}

function showStep(element, state) {
  const text = progressOf(state);
  if (!isChanged(element, text + state.error)) return;
  element.className = state.status;
  put(element, h("b", nameOf(state)), ` ${text}`, state.error && h("p.problem", state.error));
}
