// The face of the painter: a canvas with its tools, which tells what the mouse or a finger did.
//
// Two places show it.  In a notebook (widgets.py, PaintCanvas) Python paints the map, and the line
// under the mouse is a preview of that: render() below.  In the page of tools/build_page.py the
// browser paints the map itself: page/page.js.

const TOOLS = { paint: "Paint", fill: "Fill", erase: "Erase" };

export function element(tag, attributes = {}, ...children) {
  const made = Object.assign(document.createElement(tag), attributes);
  made.append(...children);
  return made;
}

// ------------------------------------------------------------------ what is painted on
// size: [width, height] of the map in pixels.  brushes: [[name, colour], ...].
// first: the name of the brush that is chosen at first.
// drawMap(context) draws the map as it is now, with no smoothing.
// tell(event) gets what widgets.py's paint_events() takes.  A stroke comes in pieces while it is
// drawn: a piece that begins where the one before it ended says that it "continues".
// The result: the elements to show, and redraw(), to be called when the map has changed.
export function paintingSurface({ size: [width, height], brushes, first, drawMap, tell }) {
  let [brush, color] = brushes.find(([name]) => name === first) ?? brushes[0];
  let tool = "paint";
  const canvas = element("canvas", { className: "painter-map", width, height });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "the label map, to be painted on");
  const context = canvas.getContext("2d");
  let stroke = null; // the newest piece of what the mouse is drawing
  let pointer = null;

  function redraw() {
    drawMap(context);
    if (pointer && tool !== "fill") {
      context.strokeStyle = "white";
      context.lineWidth = 1;
      context.beginPath();
      context.arc(...pointer, size.value / 2, 0, 2 * Math.PI);
      context.stroke();
    }
  }

  function position(event) {
    const box = canvas.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * width;
    const y = ((event.clientY - box.top) / box.height) * height;
    return [x, y];
  }

  // The canvas may begin between two pixels of the screen, so a click can lie a little outside.
  const inside = (value, limit) => Math.min(Math.max(value, 0), limit - 0.01);

  // Only the first of several fingers paints.
  function begin(event) {
    if (event.button !== 0 || !event.isPrimary) return;
    const [x, y] = position(event);
    if (tool === "fill") {
      const point = [inside(x, width), inside(y, height)];
      return tell({ do: "fill", name: brush, point });
    }
    canvas.setPointerCapture(event.pointerId);
    stroke = { do: tool, name: brush, size: Number(size.value), points: [[x, y]] };
    stroke.color = tool === "paint" ? color : "#ffffff80"; // of the preview
    tell(stroke);
  }

  function move(event) {
    if (!event.isPrimary) return;
    if (!event.buttons) stroke = null; // it was let go of where the page did not hear of it
    pointer = position(event);
    if (stroke) {
      stroke = { ...stroke, points: [stroke.points.at(-1), pointer], continues: true };
      tell(stroke);
    }
    redraw();
  }

  canvas.onpointerdown = begin;
  canvas.onpointermove = move;
  canvas.onpointerup = canvas.onpointercancel = (event) => {
    if (event.isPrimary) stroke = null;
  };
  canvas.onpointerleave = () => {
    pointer = null;
    redraw();
  };

  // ------------------------------------------------------------------ tools and brushes
  const largest = Math.floor(height / 2);
  const size = element("input", { type: "range", min: 1, max: largest, value: largest / 6 });
  size.title = "brush size";
  size.setAttribute("aria-label", "brush size in pixels");
  const sizeText = element("span", { className: "painter-size" });
  size.oninput = () => (sizeText.textContent = `${size.value} px`);
  size.oninput();

  function choice(text, onclick, chosen, swatch) {
    const button = element("button", { type: "button", onclick: () => (onclick(), mark()) });
    if (swatch) {
      const patch = element("span", { className: "painter-swatch" });
      patch.style.background = swatch;
      button.append(patch);
    }
    button.append(text);
    button.title = text;
    const markIt = () => {
      button.classList.toggle("painter-chosen", chosen());
      button.setAttribute("aria-pressed", chosen());
    };
    return { button, mark: markIt };
  }

  const tools = Object.entries(TOOLS).map(([name, text]) =>
    choice(text, () => (tool = name), () => tool === name),
  );
  const palette = brushes.map(([name, itsColor]) => {
    const take = () => {
      [brush, color] = [name, itsColor];
      if (tool === "erase") tool = "paint";
    };
    return choice(name, take, () => brush === name, itsColor);
  });
  const mark = () => [...tools, ...palette].forEach((item) => item.mark());
  mark();

  const command = (text, event) =>
    element("button", { type: "button", title: text, onclick: () => tell(event) }, text);

  const bar = (label, ...children) => {
    const made = element("div", { className: "painter-bar" }, ...children);
    made.setAttribute("role", "group");
    made.setAttribute("aria-label", label);
    return made;
  };

  const toolBar = bar(
    "tools",
    ...tools.map((item) => item.button),
    element("span", { className: "painter-brush" }, size, sizeText),
    command("Undo", { do: "undo" }),
    command("Start over", { do: "start over" }),
  );
  const brushBar = bar("classes to paint", ...palette.map((item) => item.button));
  return { canvas, toolBar, brushBar, redraw };
}

// ------------------------------------------------------------------ in a notebook
function render({ model, el }) {
  const [width, height] = model.get("size");

  // One request is under way at a time.  What happens meanwhile waits in the queue and goes in one
  // piece, so a slow generator draws fewer pictures instead of falling behind.
  let asked = [];
  let queue = [];

  function tell(event) {
    const last = queue.at(-1);
    // Pieces of a stroke that wait together become one.
    if (event.continues && last?.points) last.points.push(event.points.at(-1));
    else queue.push(structuredClone(event));
    flush();
  }

  function flush() {
    if (asked.length) return;
    [asked, queue] = [queue, []];
    el.dataset.waiting = asked.length ? "yes" : "no";
    if (!asked.length) return;
    // the number tells two equal requests apart: undo, and undo once more
    model.set("request", { number: Math.random(), events: asked });
    model.save_changes();
  }

  const map = new Image();
  const picture = element("img", { className: "painter-picture", alt: "the generated street" });

  function drawMap(context) {
    context.drawImage(map, 0, 0, width, height);
    context.lineCap = context.lineJoin = "round";
    for (const event of [...asked, ...queue].filter((event) => event.points)) {
      context.strokeStyle = event.color;
      context.lineWidth = event.size;
      context.beginPath();
      context.moveTo(...event.points[0]);
      event.points.forEach((point) => context.lineTo(...point));
      context.stroke();
    }
  }

  const surface = paintingSurface({
    size: [width, height],
    brushes: model.get("brushes"), // [[name, colour], ...]
    drawMap,
    tell,
  });

  // ------------------------------------------------------------------ what Python answers
  const message = element("div", { className: "painter-message" });
  const showMap = () => {
    map.src = model.get("map_url");
    return map.decode().catch(() => {}); // it is refused where a newer one comes before it is read
  };
  const showPicture = () => (picture.src = model.get("picture_url"));
  const showMessage = () => (message.textContent = model.get("message"));
  map.onload = surface.redraw;
  model.on("change:map_url", showMap);
  model.on("change:picture_url", showPicture);
  model.on("change:message", showMessage);
  model.on("change:answered", () => {
    // the preview stays until the painted map is there
    showMap().then(() => {
      asked = [];
      surface.redraw();
      flush();
    });
  });
  showMap();
  showPicture();
  showMessage();

  el.classList.add("painter");
  el.replaceChildren(
    surface.toolBar,
    surface.brushBar,
    element("div", { className: "painter-pictures" }, surface.canvas, picture),
    message,
  );
  flush();
}

export default { render };
