// The page: its lists and files, the painting, and one picture after the other.

import { element, paintingSurface } from "./painter.js";
import { Painting, resized } from "./painting.js";
import { decodeMap, encodePng } from "./png.js";

// The smallest program with an instruction of WebAssembly's SIMD (from wasm-feature-detect): a
// browser that finds it invalid can't run onnxruntime-web.
const SIMD_PROGRAM = [
  ...[0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3],
  ...[2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11],
];

const byId = (id) => document.getElementById(id);

function say(text, isTrouble = false) {
  byId("message").textContent = text;
  byId("message").classList.toggle("trouble", isTrouble);
}

// Does what may fail; an error becomes a sentence on the page.
async function attempt(action) {
  try {
    await action();
  } catch (error) {
    byId("progress").hidden = true;
    say(error.message, true);
  }
}

function checkBrowser() {
  const wanted = "take a recent Chrome, Edge, Firefox or Safari (16.4 or newer)";
  if (!globalThis.WebAssembly?.validate(Uint8Array.from(SIMD_PROGRAM))) {
    throw new Error(
      `This browser has no WebAssembly with SIMD, in which the network is computed: ${wanted}.`,
    );
  }
  if (!globalThis.DecompressionStream) {
    throw new Error(`This browser has no DecompressionStream, which reads the maps: ${wanted}.`);
  }
}

async function fetched(address) {
  const answer = await fetch(address);
  if (!answer.ok) {
    throw new Error(`${address} could not be loaded (${answer.status}): load this page again.`);
  }
  return answer;
}

// ------------------------------------------------------------------ the worker
// It is asked one thing at a time.  What it still reports of a question that failed is passed over.
class Engine {
  constructor() {
    this.worker = new Worker("engine.js", { type: "module" });
    this.number = 0;
  }

  ask(question, showProgress) {
    const number = ++this.number;
    return new Promise((resolve, reject) => {
      this.giveUp = reject;
      this.worker.onerror = () =>
        reject(new Error("engine.js did not start: load this page again, or update the browser."));
      this.worker.onmessage = ({ data }) => {
        if (data.number !== this.number) return;
        if ("progress" in data) return showProgress(data.progress);
        this.number++;
        if (data.error) reject(new Error(data.error));
        else resolve(data);
      };
      this.worker.postMessage({ number, ...question });
    });
  }

  close() {
    this.worker.terminate();
    this.giveUp?.(new Error("The drawing was stopped."));
  }
}

// ------------------------------------------------------------------ lists of choices
function setOptions(list, names, preferred) {
  list.replaceChildren(...names.map((name) => element("option", { value: name }, name)));
  if (names.includes(preferred)) list.value = preferred;
}

// A generator's styles have one or two names each: a style, or a city and an hour.
class StyleLists {
  constructor(onchange) {
    this.lists = [byId("city"), byId("hour")];
    this.lists[0].onchange = () => (this.#showHours(), onchange());
    this.lists[1].onchange = onchange;
  }

  show({ lists, styles, style }) {
    this.styles = styles;
    const [first, second] = this.lists;
    const unique = [...new Set(styles.map(({ names }) => names[0]))];
    const kept = unique.includes(first.value) ? first.value : style[0];
    byId("city-label").textContent = lists[0];
    setOptions(first, unique, kept);
    second.parentElement.hidden = lists.length < 2;
    this.#showHours(style[1]);
  }

  get z() {
    const { z } = this.styles.find(
      ({ names: [city, hour] }) =>
        city === this.lists[0].value && (hour ?? "") === this.lists[1].value,
    );
    return new Float32Array(Uint8Array.from(atob(z), (byte) => byte.charCodeAt(0)).buffer);
  }

  // Some cities were seen at some hours only.
  #showHours(preferred) {
    const [first, second] = this.lists;
    const ofCity = this.styles.filter(({ names }) => names[0] === first.value);
    const hours = ofCity.map(({ names }) => names[1] ?? "");
    setOptions(second, hours, hours.includes(second.value) ? second.value : preferred);
  }
}

// "#rrggbb" as the number that stands for it in the memory of an ImageData.
function rgba(color) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
  return new Uint32Array(Uint8Array.of(red, green, blue, 255).buffer)[0];
}

// ------------------------------------------------------------------ the whole
async function main() {
  checkBrowser();
  const site = await (await fetched("site.json")).json();
  const idOf = Object.fromEntries(site.labels.map(({ name }, id) => [name, id]));
  const colors = site.labels.map(({ color }) => rgba(color));
  const starts = site.starts.flatMap(({ maps }) => maps);
  const size = site.generators[0].size; // of the map, whichever generator draws it
  const [width, height] = size;

  async function readMap(bytes, name) {
    const map = await decodeMap(bytes, name);
    if (map.width * height !== map.height * width) {
      throw new Error(
        `${name} is ${map.width}x${map.height} pixels, and the painter's maps have the shape of ` +
          `${width}x${height}: cut it to that shape first.`,
      );
    }
    return resized(map, size);
  }

  async function readStart(title) {
    const { file } = starts.find((start) => start.title === title);
    return readMap(new Uint8Array(await (await fetched(file)).arrayBuffer()), file);
  }

  // ---------------------------------------------------------------- map and picture
  const painting = new Painting(await readStart(starts[0].title), idOf);
  const mapPixels = new ImageData(width, height);
  const mapColors = new Uint32Array(mapPixels.data.buffer);

  function drawMap(context) {
    painting.map.ids.forEach((id, index) => (mapColors[index] = colors[id]));
    context.putImageData(mapPixels, 0, 0);
  }

  const change = (action) =>
    attempt(async () => {
      await action();
      surface.redraw();
      refresh();
    });

  const brushes = site.brushes.map((name) => [name, site.labels[idOf[name]].color]);
  const tell = (event) => change(() => painting.apply(event));
  const surface = paintingSurface({ size, brushes, first: "car", drawMap, tell });
  const picture = element("canvas", { className: "painter-picture", width, height });
  picture.setAttribute("role", "img");
  picture.setAttribute("aria-label", "the generated street");
  byId("map-frame").append(surface.canvas);
  byId("picture-frame").append(picture);
  byId("painter").append(surface.toolBar, surface.brushBar);
  surface.redraw();

  let drawn = null; // { pixels, width, height }: the picture, three bytes a pixel

  function showPicture({ pixels, width, height }) {
    const shown = new ImageData(width, height);
    for (let from = 0, to = 0; from < pixels.length; from += 3, to += 4) {
      shown.data.set([pixels[from], pixels[from + 1], pixels[from + 2], 255], to);
    }
    [picture.width, picture.height] = [width, height];
    picture.getContext("2d").putImageData(shown, 0, 0);
  }

  // ---------------------------------------------------------------- one picture after the other
  let engine = new Engine();
  let isWanted = false;
  let isBusy = false;

  // What is painted while a picture is drawn is in the next one.
  async function refresh() {
    isWanted = true;
    document.body.dataset.waiting = "yes";
    if (isBusy) return;
    isBusy = true;
    while (isWanted) {
      isWanted = false;
      await attempt(drawStreet);
    }
    isBusy = false;
    document.body.dataset.waiting = "no";
  }

  async function drawStreet() {
    const [generator, z] = [chosenGenerator(), styleLists.z];
    const runtime = site.runtime[byId("webgpu").checked ? "webgpu" : "wasm"];
    const megabytes = (generator.bytes / 1e6).toFixed(1);
    await engine.ask({ do: "load", generator, runtime }, (share) => {
      const bar = byId("progress");
      bar.hidden = false;
      if (share === null) {
        bar.removeAttribute("value");
        say("The network starts: the first picture takes longest ...");
      } else {
        bar.value = share;
        say(`Loading the generator "${generator.title}" (${megabytes} MB) and onnxruntime-web ...`);
      }
    });
    byId("progress").hidden = true;
    const start = performance.now();
    const map = resized(painting.map, generator.size);
    const notice = setTimeout(say, 1000, "Drawing ...");
    const { pixels } = await engine
      .ask({ do: "draw", generator, map, z })
      .finally(() => clearTimeout(notice));
    drawn = { ...map, pixels };
    showPicture(drawn);
    document.body.dataset.pictures++;
    say(`Drawn in ${((performance.now() - start) / 1000).toFixed(1)} seconds.`);
  }

  // ---------------------------------------------------------------- what can be chosen
  const generators = byId("generator");
  const chosenGenerator = () => site.generators.find(({ title }) => title === generators.value);
  const styleLists = new StyleLists(refresh);

  function showGenerator() {
    styleLists.show(chosenGenerator());
    byId("licence").textContent = chosenGenerator().licence;
  }

  setOptions(generators, site.generators.map(({ title }) => title));
  generators.onchange = () => (showGenerator(), refresh());
  showGenerator();
  byId("start").replaceChildren(
    ...site.starts.map(({ group, maps }) => {
      const options = maps.map(({ title }) => element("option", { value: title }, title));
      return element("optgroup", { label: group }, ...options);
    }),
  );
  byId("start").onchange = ({ target: { value } }) =>
    change(async () => painting.startOver(await readStart(value)));
  byId("credit").textContent = site.credit.text;
  byId("credit-licence").textContent = site.credit.licence;
  byId("credit-licence").href = site.credit.url;
  byId("project").href = site.project;
  byId("project-line").hidden = !site.project;

  byId("webgpu").disabled = !navigator.gpu;
  byId("webgpu").onchange = () => {
    engine.close(); // what one engine has loaded is of no use to the other
    engine = new Engine();
    refresh();
  };

  // ---------------------------------------------------------------- files
  function save(blob, name) {
    const link = element("a", { href: URL.createObjectURL(blob), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000); // a slow disk may still be reading
  }

  byId("save-map").onclick = () =>
    attempt(async () => {
      save(await encodePng(painting.map.ids, width, height), "my street_labelIds.png");
      say("Saved as numbers of classes, which look black in a picture viewer: for Load map.");
    });
  byId("save-picture").onclick = () =>
    attempt(async () => {
      if (!drawn) throw new Error("There is no picture yet: wait until the first one is drawn.");
      save(await encodePng(drawn.pixels, drawn.width, drawn.height), "my street.png");
    });
  byId("load-map").onchange = ({ target }) =>
    change(async () => {
      const [file] = target.files;
      target.value = ""; // the same file may be loaded once more
      painting.startOver(await readMap(new Uint8Array(await file.arrayBuffer()), file.name));
      byId("start").selectedIndex = -1; // so that each of its maps can be chosen
    });
  document.onkeydown = (event) => {
    if ((event.ctrlKey || event.metaKey) && !event.shiftKey && event.key.toLowerCase() === "z") {
      event.preventDefault();
      tell({ do: "undo" });
    }
  };

  document.body.dataset.ready = "yes";
  refresh();
}

attempt(main);
