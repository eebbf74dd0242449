// The face of the painter (widgets.py, PaintCanvas): it shows two pictures and tells Python
// what the mouse did.  Python paints the map; the line under the mouse is a preview of that.

const TOOLS = { paint: "Paint", fill: "Fill", erase: "Erase" };

function element(tag, attributes = {}, ...children) {
  const made = Object.assign(document.createElement(tag), attributes);
  made.append(...children);
  return made;
}

function render({ model, el }) {
  const [width, height] = model.get("size");
  const brushes = model.get("brushes"); // [[name, colour], ...]
  let [brush, color] = brushes[0];
  let tool = "paint";

  // ------------------------------------------------------------------ talking to Python
  // One request is under way at a time.  What happens meanwhile waits in the queue and goes in one
  // piece, so a slow generator draws fewer pictures instead of falling behind.
  let asked = [];
  let queue = [];

  function tell(event) {
    queue.push(event);
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

  // ------------------------------------------------------------------ the map, painted on
  const canvas = element("canvas", { className: "painter-map", width, height });
  const context = canvas.getContext("2d");
  const map = new Image();
  const picture = element("img", { className: "painter-picture", alt: "the generated street" });
  let stroke = null; // the event that the mouse is drawing
  let pointer = null;

  function redraw() {
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
    stroke.color = tool === "paint" ? color : "#ffffff80";
    tell(stroke);
  }

  function move(event) {
    if (!event.isPrimary) return;
    if (!event.buttons) stroke = null; // it was let go of where the page did not hear of it
    pointer = position(event);
    if (stroke && queue.includes(stroke)) {
      stroke.points.push(pointer);
    } else if (stroke) {
      // the part so far is under way: go on from where it ends
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
    return { button, mark: () => button.classList.toggle("painter-chosen", chosen()) };
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

  const undo = element("button", { type: "button", title: "Undo" }, "Undo");
  undo.onclick = () => tell({ do: "undo" });
  const again = element("button", { type: "button", title: "Start over" }, "Start over");
  again.onclick = () => tell({ do: "start over" });

  // ------------------------------------------------------------------ what Python answers
  const message = element("div", { className: "painter-message" });
  const showMap = () => {
    map.src = model.get("map_url");
    return map.decode().catch(() => {}); // it is refused where a newer one comes before it is read
  };
  const showPicture = () => (picture.src = model.get("picture_url"));
  const showMessage = () => (message.textContent = model.get("message"));
  map.onload = redraw;
  model.on("change:map_url", showMap);
  model.on("change:picture_url", showPicture);
  model.on("change:message", showMessage);
  model.on("change:answered", () => {
    // the preview stays until the painted map is there
    showMap().then(() => {
      asked = [];
      redraw();
      flush();
    });
  });
  showMap();
  showPicture();
  showMessage();

  const bar = (...children) => element("div", { className: "painter-bar" }, ...children);
  el.classList.add("painter");
  el.replaceChildren(
    bar(...tools.map((item) => item.button), size, sizeText, undo, again),
    bar(...palette.map((item) => item.button)),
    element("div", { className: "painter-pictures" }, canvas, picture),
    message,
  );
  flush();
}

export default { render };
