#!/usr/bin/env python3
"""The painter as a page for any browser: a folder of files for any web server.

    python tools/build_page.py                      # into out/site
    python tools/build_page.py --runtime local      # with onnxruntime-web in it: needs npm, once
    python -m http.server --directory out/site      # then open http://localhost:8000

The page (page/) paints as utils/painter does, with its painter.js, and draws with each generator
that data/weights holds, by onnxruntime-web.  --runtime cdn, the default, lets the browser fetch
that from jsdelivr.net: one version, whose files must have the hashes below.
"""

import argparse
import base64
import contextlib
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project, not installed

import spade
from spade.generator import MEAN_STYLE
from spade.semantics import LABEL_PLANES, SEMANTIC_CHANNELS, label_codes
from tools.setup_cell import REPOSITORY
from utils.credits import CREDITS, STREETS
from utils.files import PROJECT, write_atomically
from utils.images import crop_to_aspect, pm1_to_u8, read_map, resize_map, save_image
from utils.labels import BENCHMARK_NAMES, COLORS, NAMES
from utils.painter import empty_street
from utils.painter.painting import ANY, BRIGHT, styles_by_city
from utils.progress import progress
from utils.scenes import open_scenes
from utils.weights import OWN_LICENCE, pack_state, unpack_state

SITE = PROJECT / "out" / "site"
WEIGHTS = PROJECT / "data" / "weights"
MAX_BYTES = 7_000_000  # of one generator: what a phone loads in a few seconds

# Generators by the names in their files, in the order of the list; others follow.
TITLES = {"streets": "real streets", "toy": "toy streets"}
CALIFORNIA_STARTS = ("0030", "0026", "0052", "0044")  # the first is what the page opens with
TOY_STARTS = (0, 1, 2, 6)  # scenes of the validation split

RUNTIME_VERSION = "1.30.0"
RUNTIME_CDN = f"https://cdn.jsdelivr.net/npm/onnxruntime-web@{RUNTIME_VERSION}/dist/"
RUNTIME_COPY = PROJECT / "out" / f"onnxruntime-web-{RUNTIME_VERSION}"
RUNTIME_HASHES = {  # in the form of https://www.w3.org/TR/SRI
    "ort.wasm.bundle.min.mjs": (
        "sha384-PLWz+nHEVHpjwBsO0YVdvQj6n5814Iv8E3b8FG0Rp/uIAtjFMCKOpP66iPzedrIG"
    ),
    "ort-wasm-simd-threaded.wasm": (
        "sha384-vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75JparGq9kB+kTnEUNVM"
    ),
    "ort.webgpu.bundle.min.mjs": (
        "sha384-1ntMeyj+z5diX6vBR5h+zlJBPc4iNvhCxE6nlammh8daBYcLBZkzrwDkuJjhwI+f"
    ),
    "ort-wasm-simd-threaded.asyncify.wasm": (
        "sha384-EPVDLTxuO663dkZO/pcKJF6vOyyfq/5z9FY1oksN0UWFX2ABH4wDDZQHeNoUleWR"
    ),
}
RUNTIMES = {
    "wasm": ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"),
    "webgpu": ("ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm"),
}


# ------------------------------------------------------------------------------ the generator


class InBrowser(nn.Module):
    """A generator from label ids to bytes, with weights of 8 bits that it unpacks itself.

    The bundled files hold the same 8 bits, so nothing is lost.  onnxruntime unpacks them once, when
    it loads the graph.
    """

    def __init__(self, generator: spade.SpadeGenerator):
        super().__init__()
        self._call = [generator]  # in a list: its float weights are not part of this module
        packed = pack_state(generator.to(memory_format=torch.contiguous_format).state_dict())
        self._names = [key for key, tensor in packed.items() if tensor.dtype != torch.int64]
        for number, key in enumerate(self._names):  # a buffer's name has no dots
            self.register_buffer(f"packed_{number}", packed[key])

    def forward(self, label_ids: Tensor, z: Tensor) -> Tensor:
        """label_ids (1, H, W) uint8 and z (1, z_dim) -> the picture, (H, W, 3) uint8."""
        codes = label_codes(label_ids, checked=True)  # (1, H, W)
        planes = nn.functional.one_hot(codes % LABEL_PLANES, SEMANTIC_CHANNELS)  # (1, H, W, 36)
        edges = (codes >= LABEL_PLANES).long()[..., None]
        planes = torch.cat([planes[..., :LABEL_PLANES], edges], -1).permute(0, 3, 1, 2).float()
        packed = {key: self.get_buffer(f"packed_{i}") for i, key in enumerate(self._names)}
        weights = unpack_state(packed)
        image_pm1 = torch.func.functional_call(self._call[0], weights, (planes, z))
        return pm1_to_u8(image_pm1)[0].permute(1, 2, 0)


@torch.no_grad()
def export_generator(
    generator: spade.SpadeGenerator, path: Path, programs: dict[str, torch.onnx.ONNXProgram]
) -> None:
    """Write a generator as an ONNX graph: label_ids and z in, image_u8 out, see InBrowser.

    Args:
        programs: the graphs made so far, by the generator's settings.  A generator with the same
            settings has the same graph, and only puts its weights into it.

    Raises:
        ValueError: it has no latent, or makes a file that is too large for a page.
    """
    if generator.z_dim is None:
        raise ValueError(
            "The generator has no latent, and the page offers styles: expected one with z_dim."
        )
    width, height = generator.size
    module, settings = InBrowser(generator).eval(), repr(generator.settings)
    if settings in programs:
        programs[settings].apply_weights(module.state_dict())
    else:
        programs[settings] = torch.onnx.export(
            module,
            (torch.zeros(1, height, width, dtype=torch.uint8), torch.zeros(1, generator.z_dim)),
            dynamo=True,
            input_names=["label_ids", "z"],
            output_names=["image_u8"],
            optimize=False,  # onnxruntime does that itself when it loads the graph
            verbose=False,
        )
    program = programs[settings]
    # Without the lines of Python that each node comes from, which name folders of this machine.
    for node in program.model.graph:
        node.metadata_props.clear()
        node.doc_string = None
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda temporary: program.save(temporary, external_data=False))
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(
            f"{path.name} has {path.stat().st_size:,} bytes, expected at most {MAX_BYTES:,}: take "
            "a narrower generator (ngf, max_channels)."
        )


def style_lists(generator: spade.SpadeGenerator) -> dict:
    """A generator's styles as one or two lists: {"lists": titles, "styles": ..., "style": chosen}.

    With pairs, "Sonnental, dusk", the two lists are those of the painter, see styles_by_city();
    without, there is one of all names.  A style is {"names": one or two, "z": base64 of float32}.
    """
    by_city = styles_by_city(generator)
    styles = {
        (city, hour): name
        for city in sorted(by_city, key=lambda city: (city == ANY, city))
        for hour, name in by_city[city].items()
    }
    has_pairs = any(", " in name for name in generator.styles)
    if has_pairs:
        first_city = next(iter(styles))[0]
        offered = [names for names in styles if names[0] == first_city]
    else:  # hours, then cities, and the mean last
        hours_first = sorted(styles, key=lambda names: (names == (ANY, ANY), names[0] != ANY))
        styles = {(styles[names],): styles[names] for names in hours_first}
        offered = list(styles)
    zero = torch.zeros(1, generator.z_dim)
    return {
        "lists": ["City", "Hour"] if has_pairs else ["Style"],
        "styles": [
            {"names": names, "z": _base64(zero if name == MEAN_STYLE else generator.style(name))}
            for names, name in styles.items()
        ],
        "style": next((names for names in offered if names[-1] in BRIGHT), offered[0]),
    }


def _base64(numbers: Tensor) -> str:
    return base64.b64encode(numbers.numpy().astype("<f4").tobytes()).decode()


def find_generators(folder: Path = WEIGHTS) -> dict[str, Path]:
    """The generators in a folder, by the titles that the page gives them.

    Raises FileNotFoundError if there is none.
    """
    files = {path.stem.partition("_")[2]: path for path in folder.glob("generator_*.safetensors")}
    files.pop("plain", None)  # notebook 03's, which has no styles to choose from
    if not files:
        raise FileNotFoundError(
            f"{folder} holds no generator_*.safetensors: pass a folder of bundled weights."
        )
    names = [*TITLES, *sorted(files.keys() - TITLES)]
    return {TITLES.get(name, name): files[name] for name in names if name in files}


def describe_generator(title: str, path: Path, folder: Path, programs: dict) -> dict:
    """Export a generator into the page's folder -> what the page has to know about it.

    programs: see export_generator().
    """
    generator = spade.load_generator(path)
    draft = folder / "generators" / "draft.onnx"
    export_generator(generator, draft, programs)
    content = draft.read_bytes()
    # The hash in its name: a browser never takes an older one, which it has kept, for it.
    name = f"{path.stem}.{hashlib.sha256(content).hexdigest()[:8]}.onnx"
    draft.rename(draft.with_name(name))
    is_toy = path.stem.endswith("_toy")  # the file of before licences were noted in files
    licence = generator.licence or (OWN_LICENCE if is_toy else "not known")
    terms = "" if licence == OWN_LICENCE else ", not for commercial use; so are its pictures"
    return {
        "title": title,
        "file": f"generators/{name}",
        "bytes": len(content),
        "size": generator.size,
        "licence": licence + terms,
        **style_lists(generator),
    }


# ------------------------------------------------------------------------------ maps to start from


def without_gaps(label_ids: Tensor) -> Tensor:
    """Give each unlabelled pixel a label of its neighbours, from the border of a gap inwards.

    label_ids: (H, W) uint8, with at least one label -> the same, without 0.
    """
    while (label_ids == 0).any() and label_ids.any():
        planes = nn.functional.one_hot(label_ids.long()).permute(2, 0, 1).float()  # (K, H, W)
        beside = nn.functional.avg_pool2d(planes[None], 3, stride=1, padding=1)[0]
        beside[0] = 0  # unlabelled is no label
        label_ids = torch.where(label_ids == 0, beside.argmax(0).to(torch.uint8), label_ids)
    return label_ids


def write_starts(folder: Path, size: tuple[int, int]) -> list[dict]:
    """Write the maps that one can start from -> [{"group", "maps": [{"title", "file"}]}]."""
    toy = open_scenes("toy", "val", size=size)
    photos = STREETS / "california"
    california = [photos / "maps" / f"california_{number}.png" for number in CALIFORNIA_STARTS]
    groups = {
        "California": [
            without_gaps(resize_map(crop_to_aspect(read_map(path), size), size))
            for path in california
            if path.is_file()  # people may delete photos that they don't want to pass on
        ],
        "toy street": [toy[index].label_ids for index in TOY_STARTS],
    }
    maps = {
        group: {f"{group} {number}": ids for number, ids in enumerate(members, 1)}
        for group, members in groups.items()
    }
    maps["nothing"] = {"an empty street": empty_street(size)}
    listed = []
    for group, members in maps.items():
        if not members:
            continue
        entries = []
        for title, label_ids in members.items():
            file = f"maps/{title.replace(' ', '_')}.png"
            save_image(label_ids, folder / file)
            entries.append({"title": title, "file": file})
        listed.append({"group": group, "maps": entries})
    return listed


# ------------------------------------------------------------------------------ onnxruntime-web


def integrity(path: Path) -> str:
    """The hash of a file, "sha384-..." as browsers check it."""
    digest = hashlib.sha384(path.read_bytes()).digest()
    return f"sha384-{base64.b64encode(digest).decode()}"


def check_runtime(folder: Path) -> None:
    """Raise ValueError unless a folder holds the files of onnxruntime-web, unchanged."""
    for name, expected in RUNTIME_HASHES.items():
        if not (folder / name).is_file() or integrity(folder / name) != expected:
            raise ValueError(
                f"{folder / name} is not the one of onnxruntime-web {RUNTIME_VERSION}: delete the "
                "folder and run this again."
            )


def fetch_runtime(folder: Path = RUNTIME_COPY) -> Path:
    """A local copy of onnxruntime-web, fetched by npm the first time -> its folder.

    Raises:
        FileNotFoundError: npm is not installed.
        ValueError: npm failed, or the files are not those that the hashes are of.
    """
    if not folder.is_dir():
        npm = shutil.which("npm")
        if npm is None:
            raise FileNotFoundError(
                "A local copy of onnxruntime-web is fetched by npm, and there is none: install "
                "Node.js (Debian: apt-get install npm), or take --runtime cdn."
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as own:
            command = [npm, "pack", "--silent", f"onnxruntime-web@{RUNTIME_VERSION}"]
            done = subprocess.run(command, cwd=own, capture_output=True, text=True)
            archives = list(Path(own).glob("*.tgz"))
            if done.returncode or len(archives) != 1:
                raise ValueError(
                    f"npm could not fetch onnxruntime-web {RUNTIME_VERSION} ({done.stderr.strip()})"
                    ": check the connection, or take --runtime cdn."
                )
            unpacked = Path(own) / "files"
            unpacked.mkdir()
            with tarfile.open(archives[0]) as archive:
                for name in RUNTIME_HASHES:
                    member = archive.extractfile(f"package/dist/{name}")
                    (unpacked / name).write_bytes(member.read())
            check_runtime(unpacked)
            with contextlib.suppress(OSError):  # another process was here first; checked below
                unpacked.rename(folder)
    check_runtime(folder)
    return folder


def describe_runtime(base: str) -> dict:
    """The files of onnxruntime-web for each way to compute, with the hashes to check."""

    def file(name: str) -> dict:
        return {"url": base + name, "integrity": RUNTIME_HASHES[name]}

    advice = {
        "wasm": "load this page again, or update the browser",
        "webgpu": "take the tick at WebGPU away",
    }
    return {
        kind: {
            "module": file(module),
            "binary": file(binary),
            "providers": [kind],
            "advice": advice[kind],
        }
        for kind, (module, binary) in RUNTIMES.items()
    }


# ------------------------------------------------------------------------------ the page


def build(folder: Path = SITE, runtime: str = "cdn", weights: Path = WEIGHTS) -> Path:
    """Write the whole page into a folder, whose earlier content goes -> the folder.

    Args:
        runtime: "cdn" or "local", where the browser gets onnxruntime-web from.
        weights: the folder of the generators.
    """
    generators = find_generators(weights)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in (PROJECT / "page").iterdir():
        shutil.copy(file, folder)
    for name in ("painter.js", "painter.css"):  # the same files that the notebook's widget has
        shutil.copy(PROJECT / "utils" / "painter" / name, folder)
    base = RUNTIME_CDN
    if runtime == "local":
        base = "runtime/"
        shutil.copytree(fetch_runtime(), folder / base)
    programs = {}
    described = [
        describe_generator(*item, folder, programs)
        for item in progress(generators.items(), "exporting generators")
    ]
    credit = CREDITS["California"]
    site = {
        "labels": [
            {"name": name, "color": "#{:02x}{:02x}{:02x}".format(*color)}
            for name, color in zip(NAMES, COLORS.tolist())
        ],
        "brushes": BENCHMARK_NAMES,
        "generators": described,
        "starts": write_starts(folder, described[0]["size"]),
        "credit": {
            "text": f"{credit.source} ({credit.authors})",
            "licence": credit.licence,
            "url": credit.licence_url,
        },
        "project": REPOSITORY,
        "runtime": describe_runtime(base),
    }
    (folder / "site.json").write_text(json.dumps(site, ensure_ascii=False), encoding="utf-8")
    return folder


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=SITE, help="the folder; what is in it goes")
    parser.add_argument("--runtime", choices=("cdn", "local"), default="cdn")
    options = parser.parse_args(arguments)
    folder = build(options.out, options.runtime)
    print(f"The page is in {folder}: python -m http.server --directory {folder}")


if __name__ == "__main__":
    main()
