"""`shacira html`: the page holds the very file, nothing else, and shows what is wrong with it."""

import base64
import json
import pathlib
import re
import shutil
import subprocess
import zlib

import pytest
import test_independent_decoder
from synthetic_fields import make_field

from shacira_nerfstudio.cli.main import main
from shacira_nerfstudio.codec import decode_scene, encode_scene
from shacira_nerfstudio.codec.scene_file import read_file
from shacira_nerfstudio.viewer import html

NODE = test_independent_decoder.NODE
GOLDEN = {path.stem: path for path in test_independent_decoder.GOLDEN}


@pytest.fixture(scope="module")
def field():
    """A file that a page shows: two channels in contracted space."""
    return encode_scene(make_field("contracted", 2))


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs `shacira html` in an empty folder: exit status and both outputs."""
    monkeypatch.chdir(tmp_path)

    def run(data, *arguments, name="some.shacira"):
        pathlib.Path(name).write_bytes(data)
        status = main(["html", name, *arguments])
        return status, *capsys.readouterr()

    return run


def scene_in(page):
    """The base64 of the file that a page holds."""
    (text,) = re.findall(r'<script [^>]*id="scene">([^<]*)</script>', page)
    return text


def program_in(page):
    """The scripts that a page unpacks."""
    (text,) = re.findall('const PROGRAM = "([^"]*)";', page)
    return zlib.decompress(base64.b64decode(text)).decode()


def test_the_very_bytes_are_inside(run, field):
    status, out, err = run(field, "-o", "scene.html")
    assert (status, err) == (0, "")
    page = pathlib.Path("scene.html").read_text("utf-8")
    assert base64.b64decode(scene_in(page), validate=True) == field
    assert len(page.encode()) <= 1.4 * len(field) + 60_000
    assert out == f"scene.html: {len(page.encode()):,} bytes, {len(field):,} of them the scene's\n"
    assert sorted(path.name for path in pathlib.Path().iterdir()) == ["scene.html", "some.shacira"]
    program = program_in(page)
    assert 'const FILE_NAME = "some.shacira";' in program
    assert json.dumps(html.decoder_source()) in program


def test_nothing_is_loaded(field):
    page = html.make_page(field)
    for text in (page, program_in(page)):
        assert not re.search(r"""(src|href)\s*=\s*["']?[a-z]*:?//|@import|fetch\(|XMLHttp""", text)
        assert set(re.findall(r"https?://[^\s\"'<)]*", text)) <= {"http://www.w3.org/2000/svg"}


def test_default_output_and_json(run, field):
    status, out, _ = run(field, "--json", name="a b.shacira")
    size = pathlib.Path("a b.html").stat().st_size
    assert status == 0
    assert json.loads(out) == {"bytes": size, "file": "a b.html", "scene_bytes": len(field)}


def test_names_are_no_markup(field):
    name = '</script><b>"\\é\n.shacira'
    page = html.make_page(field, file_name=name)
    assert f"const FILE_NAME = {json.dumps(name)};" in program_in(page)
    assert "<b>" not in page


DAMAGED = {
    "a flipped bit": lambda data: data[:700] + bytes([data[700] ^ 4]) + data[701:],
    "without its end": lambda data: data[:-9],
    "longer": lambda data: data + b"\0",
    "empty": lambda data: b"",
    "another format": lambda data: b"\x89PNG" + data[4:],
    "without networks": lambda data: GOLDEN["v1_tiny"].read_bytes(),
    "a picture": lambda data: GOLDEN["v1_tiny_image"].read_bytes(),
    "a video": lambda data: GOLDEN["v1_tiny_video"].read_bytes(),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_other_files_are_refused(run, field, what):
    pathlib.Path("scene.html").write_text("before")
    status, out, err = run(DAMAGED[what](field), "-o", "scene.html")
    assert (status, out) == (2, "")
    assert err.startswith("shacira: error: ") and len(err.splitlines()) == 1
    assert pathlib.Path("scene.html").read_text() == "before"


def test_a_file_without_its_end_where_that_is_asked_for(run, field):
    status, *_ = run(field[:-9], "-o", "scene.html", "--allow-truncated")
    assert status == 0
    page = pathlib.Path("scene.html").read_text("utf-8")
    assert base64.b64decode(scene_in(page)) == field[:-9]


def test_bad_outputs(run, field):
    for output, message in {
        "some.shacira": "expected another file to write",
        "missing/scene.html": "there is no folder",
    }.items():
        status, _, err = run(field, "-o", output)
        assert status == 2 and message in err and len(err.splitlines()) == 1
    assert decode_scene(pathlib.Path("some.shacira").read_bytes())
    assert main(["html", "nothing.shacira"]) == 2


@pytest.fixture
def parts(tmp_path):
    """A copy of the page's parts, to be broken."""
    return pathlib.Path(shutil.copytree(html.PAGE, tmp_path / "page"))


@pytest.mark.parametrize("marker", [html.SCRIPTS_MARKER, html.DATA_MARKER])
def test_each_marker_is_there_once(parts, field, marker):
    template = (parts / "page.html").read_text("utf-8")
    for text, count in ((template.replace(marker, ""), 0), (template + marker, 2)):
        (parts / "page.html").write_text(text, encoding="utf-8")
        with pytest.raises(
            ValueError, match=f"expected {re.escape(marker)} once.*found it {count}"
        ):
            html.make_page(field, page=parts)


def test_markers_in_what_is_injected_stay(parts, field):
    text = f"// {html.SCRIPTS_MARKER} {html.DATA_MARKER}\n"
    loader = parts / html.LOADER
    loader.write_text(text + loader.read_text("utf-8"), encoding="utf-8")
    page = html.make_page(field, page=parts)
    assert text in page and base64.b64decode(scene_in(page)) == field


def test_missing_and_impossible_parts(parts, field):
    loader = (parts / html.LOADER).read_text("utf-8")
    (parts / html.LOADER).write_text(loader + "// </SCRIPT>", encoding="utf-8")
    with pytest.raises(ValueError, match="no markup in"):
        html.make_page(field, page=parts)
    (parts / html.LOADER).write_text(loader, encoding="utf-8")
    for name in ("page.html", html.MAIN, html.LOADER, "decoder/levels.js"):
        text = (parts / name).read_text("utf-8")
        (parts / name).unlink()
        with pytest.raises(ValueError, match=f"found no .*{name}"):
            html.make_page(field, page=parts)
        (parts / name).write_text(text, encoding="utf-8")


UNPACK = """
const { readFileSync } = require("node:fs"), vm = require("node:vm");
const document = { documentElement: { dataset: {} }, createElement: () => ({}) };
document.body = { append(script) { this.script = script; } };
for (const path of process.argv.slice(1)) {
  document.body.script = document.body.textContent = null;
  vm.runInNewContext(readFileSync(path, "utf8"), { document, atob, TextDecoder });
  const { script, textContent } = document.body;
  if (script) new vm.Script(script.textContent);
  console.log(JSON.stringify(script ? script.textContent : { problem: textContent }));
}
"""


@pytest.mark.skipif(NODE is None, reason="there is no node to run JavaScript with")
def test_the_loader_unpacks_what_zlib_packed(tmp_path, field):
    """Blocks of all three types, and damage."""
    loader = (html.PAGE / html.LOADER).read_text("utf-8")
    program = program_in(html.make_page(field))
    texts = {
        "program": (program, zlib.compress(program.encode(), 9)),
        "stored": ("let é = 1;", zlib.compress("let é = 1;".encode(), 0)),
        "fixed": ("f();" * 3, zlib.compress(b"f();f();f();", 9)),
        "repeated": ("/*" + "a" * 70_000 + "*/", zlib.compress(b"/*" + b"a" * 70_000 + b"*/")),
    }
    packed = texts["program"][1]
    texts["damaged"] = None, packed[:999] + bytes([packed[999] ^ 1]) + packed[1000:]
    texts["short"] = None, packed[:-500]
    for name, (_, data) in texts.items():
        script = f'const PROGRAM = "{base64.b64encode(data).decode()}";\n{loader}'
        (tmp_path / name).write_text(script, encoding="utf-8")
    command = [str(NODE), "-e", UNPACK, *(str(tmp_path / name) for name in texts)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for (expected, _), line in zip(texts.values(), done.stdout.splitlines(), strict=True):
        found = json.loads(line)
        if expected is None:
            assert found["problem"].startswith("This page is damaged: ")
        else:
            assert found == expected


def write(path, page):
    path.write_text(page, encoding="utf-8")
    return path


@pytest.mark.browser
@pytest.mark.parametrize(("contraction", "latent_dim"), [("affine", 1), ("contracted", 2)])
def test_a_browser_finds_the_digest(open_page, decoded, tmp_path, contraction, latent_dim):
    data = encode_scene(make_field(contraction, latent_dim))
    page = open_page(write(tmp_path / "scene.html", html.make_page(data)))
    assert decoded(page) == read_file(data).digest


@pytest.mark.browser
def test_a_browser_shows_the_levels_that_are_there(open_page, decoded, tmp_path, field):
    page = open_page(write(tmp_path / "scene.html", html.make_page(field[:-9])))
    assert decoded(page) == "truncated"


@pytest.mark.browser
def test_a_damaged_page_says_so(open_page, tmp_path, field):
    whole = html.make_page(field)
    text, (program,) = scene_in(whole), re.findall('const PROGRAM = "([^"]*)";', whole)
    middle = len(text) // 2
    other = "A" if text[middle] != "A" else "B"
    damage = {
        "flipped": whole.replace(text, text[:middle] + other + text[middle + 1 :]),
        "not base64": whole.replace(text, text[:middle] + "%" + text[middle + 1 :]),
        "empty": whole.replace(text, ""),
        "program": whole.replace(program, program[:500] + program[600:]),
    }
    for name, page in damage.items():
        assert page != whole
        tab = open_page(write(tmp_path / f"{name}.html", page))
        tab.wait_for_selector("html[data-error]", state="attached")
        problem = tab.evaluate("document.documentElement.dataset.error")
        assert problem in tab.inner_text("body"), name


@pytest.mark.browser
def test_a_page_without_its_end_says_so(open_page, tmp_path, field):
    whole = html.make_page(field)
    cuts = {"in the file": whole.index("octet-stream") + 500, "in the program": len(whole) - 900}
    for name, cut in cuts.items():
        page = open_page(write(tmp_path / f"{name}.html", whole[:cut]))
        page.wait_for_selector("#problem", state="visible")
        assert "Its end is missing" in page.inner_text("#problem")
        assert not page.locator("#controls").is_visible()
