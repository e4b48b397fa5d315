"""The cache that `kogia pull` makes is the one that huggingface_hub makes: layout_test.py KOGIA

Needs a Python with huggingface_hub (that of tools/golden, named by KOGIA_GOLDEN_PYTHON, or this one); without, exit code
77: skipped.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from fake_hub import FakeHub  # noqa: E402
from pull_test import noise, sharded_model, tiny_model  # noqa: E402

SNAPSHOT = """
import sys
from huggingface_hub import snapshot_download
print(snapshot_download(sys.argv[1], revision=sys.argv[2], allow_patterns=sys.argv[3:] or None))
"""


def python_with_library():
    for python in (os.environ.get("KOGIA_GOLDEN_PYTHON", ""), sys.executable):
        if not shutil.which(python):
            continue
        if subprocess.run([python, "-c", "import huggingface_hub"], capture_output=True, check=False).returncode == 0:
            return python
    return None


def tree(cache):
    """What makes the layout: every file with its bytes, every link with what it says; without locks and listings."""
    found = {}
    for path in sorted(cache.rglob("*")):
        name = path.relative_to(cache).as_posix()
        if name.startswith((".locks", "CACHEDIR.TAG")) or "/trees" in name or "/.no_exist" in name:
            continue
        if path.is_symlink():
            found[name] = "-> " + os.readlink(path)
        elif path.is_file():
            found[name] = path.read_bytes()
        else:
            found[name] = "folder"
    return found


def run(command, env, **more):
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=600, **more)
    if done.returncode != 0:
        raise SystemExit(f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout.strip()


def compare(python, kogia, hub, folder, name, revision, files, suffix=""):
    caches = {who: folder / (who + name.replace("/", "-") + revision.replace("/", "-")) for who in ("ours", "theirs")}
    env = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and "proxy" not in k.lower()}
    env |= {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    ours = run([kogia, "pull", name + suffix, "--revision", revision], env | {"HF_HUB_CACHE": str(caches["ours"])})
    theirs = run([python, "-c", SNAPSHOT, name, revision, *files], env | {"HF_HUB_CACHE": str(caches["theirs"])})
    trees = {who: tree(cache) for who, cache in caches.items()}
    differ = {k for k in trees["ours"].keys() | trees["theirs"].keys() if trees["ours"].get(k) != trees["theirs"].get(k)}
    assert not differ, f"{name}@{revision} differ in {sorted(differ)}"
    assert pathlib.Path(ours).relative_to(caches["ours"]).parts[:3] == pathlib.Path(theirs).relative_to(caches["theirs"]).parts[:3]
    # Each finds what the other has fetched, without a network.
    offline = env | {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    run([python, "-c", SNAPSHOT, name, revision, *files], offline | {"HF_HUB_CACHE": str(caches["ours"])})
    if "model.safetensors" in files:
        run([kogia, "inspect", f"{name}@{revision}"], offline | {"HF_HUB_CACHE": str(caches["theirs"])})


def main(kogia):
    python = python_with_library()
    if python is None:
        print("no Python with huggingface_hub: skipped")
        return 77
    with FakeHub() as hub, tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        revisions = ("main", "refs/pr/7")
        commit = hub.add("org/tiny", tiny_model(), revisions=revisions)
        texts = ["config.json", "generation_config.json"]
        for revision in (*revisions, commit):
            compare(python, kogia, hub, folder, "org/tiny", revision, [*texts, "model.safetensors"])
        hub.add("org/shards", sharded_model([5000, 6000]))
        compare(python, kogia, hub, folder, "org/shards", "main", ["config.json", "model*"])
        hub.add("org/gguf", {"a/b/M-Q8_0-00001-of-00002.gguf": noise(9000), "a/b/M-Q8_0-00002-of-00002.gguf": b"small", "M-Q4_0.gguf": b"x"})
        compare(python, kogia, hub, folder, "org/gguf", "main", ["a/b/*"], suffix=":Q8_0")
    return 0


if __name__ == "__main__":
    sys.exit(main(os.path.abspath(sys.argv[1])))
