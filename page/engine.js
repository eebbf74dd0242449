// The generator, in a worker: the page can be painted on while a street is drawn.
//
// Asked to {do: "load", generator, runtime}, it answers with any number of {progress}, 0..1 or null
// for nobody knows, then {done}; to {do: "draw", generator, map, z} with {pixels}; to either, if it
// can't, with {error}, a sentence.  A question has a number, which its answers repeat.

const sessions = new Map(); // by the generator's file
let starting = null; // onnxruntime-web, as a promise

// Its bytes, which the browser compares with the hash that the page was built with.
async function fetchRuntime({ url, integrity }) {
  try {
    const answer = await fetch(url, { integrity });
    if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
    return await answer.arrayBuffer();
  } catch (error) {
    throw new Error(
      `onnxruntime-web could not be loaded from ${url}, or it is not the file that was expected ` +
        `(${error.message}): check the connection, then load this page again.`,
    );
  }
}

async function startRuntime({ module, binary }) {
  const [code, wasm] = await Promise.all([fetchRuntime(module), fetchRuntime(binary)]);
  const address = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  const loaded = await import(address);
  // One thread: more need headers that GitHub Pages does not send.
  loaded.env.wasm.numThreads = 1;
  loaded.env.wasm.wasmBinary = wasm;
  return loaded;
}

async function fetchWeights({ file, bytes, title }, reply) {
  const megabytes = (count) => (count / 1e6).toFixed(1);
  const weights = new Uint8Array(bytes);
  let received = 0;
  try {
    const answer = await fetch(file);
    if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
    const reader = answer.body.getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      weights.set(part.value, received); // refused if there is more than was expected
      received += part.value.length;
      reply({ progress: received / bytes });
    }
    if (received < bytes) throw new Error("the file is cut off");
  } catch (error) {
    throw new Error(
      `The generator "${title}" could not be loaded: ${megabytes(received)} of ` +
        `${megabytes(bytes)} MB came (${error.message}). Check the connection, then load this ` +
        "page again, or choose another generator.",
    );
  }
  return weights;
}

async function load({ generator, runtime }, reply) {
  if (sessions.has(generator.file)) return { done: true };
  reply({ progress: 0 });
  starting ??= startRuntime(runtime).catch((error) => {
    starting = null; // the next question tries again
    throw error;
  });
  const [ort, weights] = await Promise.all([starting, fetchWeights(generator, reply)]);
  reply({ progress: null });
  const options = { executionProviders: runtime.providers, graphOptimizationLevel: "all" };
  const session = await ort.InferenceSession.create(weights, options).catch((error) => {
    throw new Error(
      `The generator "${generator.title}" did not start (${error.message}): ${runtime.advice}.`,
    );
  });
  sessions.set(generator.file, session);
  return { done: true };
}

async function draw({ generator, map: { ids, width, height }, z }) {
  const ort = await starting;
  const { image_u8 } = await sessions.get(generator.file).run({
    label_ids: new ort.Tensor("uint8", ids, [1, height, width]),
    z: new ort.Tensor("float32", z, [1, z.length]),
  });
  return { pixels: await image_u8.getData() };
}

onmessage = async ({ data: { number, ...question } }) => {
  const reply = (answer) => postMessage({ number, ...answer });
  try {
    reply(await { load, draw }[question.do](question, reply));
  } catch (error) {
    reply({ error: error.message });
  }
};
