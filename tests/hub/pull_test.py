"""`kogia pull` against a server that speaks the hub's protocol and misbehaves: pull_test.py KOGIA [unittest flags]

What is shown: whatever happens on the way, only right bytes get a name that something loads; what has arrived is
used by the next run; the token stays at home.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from fake_hub import FakeHub, Faults, blob_of  # noqa: E402

KOGIA = ""
GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "data/golden"
MIB = 1 << 20
PATIENCE_S = 600  # a busy machine may stop everything for minutes
REPO, FOLDER = "org/tiny", "models--org--tiny"


def noise(n, seed=0):
    return random.Random(seed).randbytes(n)


def safetensors(values):
    """One f32 tensor."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [values], "data_offsets": [0, 4 * values]}}).encode()
    return len(header).to_bytes(8, "little") + header + noise(4 * values, values)


def tiny_model():
    """A checkpoint that loads, and what usually lies beside one in a repository."""
    folder = GOLDEN / "llama"
    return {"config.json": (folder / "config.json").read_bytes(),
            "model.safetensors": (folder / "model.safetensors").read_bytes(),
            "generation_config.json": b"{}", "README.md": b"# tiny\n", ".gitattributes": b"*\n",
            "pytorch_model.bin": noise(5000, 1), "consolidated.safetensors": noise(5000, 2),
            "onnx/model.onnx": noise(5000, 3), "model.gguf": noise(5000, 4)}


def sharded_model(sizes):
    names = [f"model-{i + 1:05}-of-{len(sizes):05}.safetensors" for i in range(len(sizes))]
    index = json.dumps({"metadata": {}, "weight_map": {f"w{i}": name for i, name in enumerate(names)}}).encode()
    shards = {name: noise(size, i) for i, (name, size) in enumerate(zip(names, sizes))}
    return {"config.json": b"{}", "model.safetensors.index.json": index, **shards, "extra.safetensors": noise(9000, 9)}


class Pull(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="kogia-pull-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.cache = self.folder / "hub"
        self.hub = self.enterContext(FakeHub())

    def enterContext(self, manager):
        value = manager.__enter__()
        self.addCleanup(manager.__exit__, None, None, None)
        return value

    def environment(self, **more):
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING")) and "proxy" not in k.lower()}
        return {**kept, "HF_ENDPOINT": self.hub.endpoint, "HF_HUB_CACHE": str(self.cache), "HOME": str(self.folder),
                "HF_HUB_DOWNLOAD_TIMEOUT": str(PATIENCE_S), **more}

    def kogia(self, *arguments, env=None, limit=None):
        return subprocess.run([KOGIA, *arguments], capture_output=True, text=True, timeout=PATIENCE_S,
                              env=self.environment(**(env or {})), stdin=subprocess.DEVNULL,
                              preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) if limit else None)

    def pull(self, *arguments, **more):
        done = self.kogia("pull", *arguments, **more)
        self.assertEqual(done.returncode, 0, done.stderr)
        return pathlib.Path(done.stdout.strip())

    def refuses(self, *arguments, words=(), code=1, **more):
        done = self.kogia("pull", *arguments, **more)
        self.assertEqual((done.returncode, done.stdout), (code, ""), done.stderr)
        self.assertIn("error: ", done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)
        self.nothing_wrong()
        return done.stderr

    def paths(self, under=None):
        return sorted(p.relative_to(under or self.cache).as_posix()
                      for p in (under or self.cache).rglob("*") if not p.is_dir() or p.is_symlink())

    def incomplete(self):
        return list(self.cache.glob("models--*/blobs/*.incomplete"))

    def nothing_wrong(self, repo=REPO):
        """Each blob has the hash that it is named after, each link leads to one, and a ref means a whole model."""
        folder = self.cache / ("models--" + repo.replace("/", "--"))
        for blob in folder.glob("blobs/*"):
            if not blob.name.endswith(".kogia.incomplete"):
                self.assertEqual(blob_of(blob.read_bytes()), blob.name)
        links = [p for p in folder.glob("snapshots/*/**/*") if not p.is_dir()]
        for link in links:
            self.assertTrue(link.is_symlink() and link.is_file(), link)
        for config in folder.glob("snapshots/*/config.json"):
            for name in config.parent.parent.parent.joinpath("wanted").read_text().split() if (folder / "wanted").exists() else []:
                self.assertTrue((config.parent / name).is_file(), name)
        for ref in filter(pathlib.Path.is_file, folder.glob("refs/**/*")):
            self.assertTrue((folder / "snapshots" / ref.read_text()).is_dir())

    def downloads(self):
        return [a for a in self.hub.log if a.method == "GET" and "/api/" not in a.path]


class What(Pull):
    def test_only_the_files_of_one_form_are_fetched(self):
        commit = self.hub.add(REPO, tiny_model())
        path = self.pull(REPO)
        self.assertEqual(path, self.cache / FOLDER / "snapshots" / commit)
        self.assertEqual(self.paths(path), ["config.json", "generation_config.json", "model.safetensors"])
        self.nothing_wrong()

    def test_the_layout_is_that_of_the_python_library(self):
        files = {**tiny_model(), "deep/er/m-Q8_0.gguf": noise(6000, 5)}
        commit = self.hub.add(REPO, files)
        self.pull(REPO)
        self.pull(REPO + ":Q8_0")
        repo = self.cache / FOLDER
        self.assertEqual((repo / "refs/main").read_bytes(), commit.encode())
        for name, up in [("config.json", "../../"), ("deep/er/m-Q8_0.gguf", "../../../../")]:
            self.assertEqual(os.readlink(repo / "snapshots" / commit / name), up + "blobs/" + blob_of(files[name]))
        self.assertIn("8a477f597d28d172789f06886806bc55", (self.cache / "CACHEDIR.TAG").read_text())

    def test_an_index_decides_which_weights(self):
        self.hub.add(REPO, sharded_model([5000, 6000, 7000]))
        path = self.pull(REPO)
        self.assertEqual(len(list(path.glob("model-*.safetensors"))), 3)
        self.assertFalse((path / "extra.safetensors").exists())

    def test_ggufs_are_chosen_by_quantisation_and_whole(self):
        names = ["M-Q4_K_M.gguf", "M-Q8_0.gguf", "BF16/M-BF16-00001-of-00002.gguf", "BF16/M-BF16-00002-of-00002.gguf",
                 "mmproj-M-f16.gguf"]
        self.hub.add(REPO, {name: noise(5000, i) for i, name in enumerate(names)})
        text = self.refuses(REPO, words=["3 GGUF models", "org/tiny:M-Q4_K_M.gguf", "(2 parts)"], code=2)
        self.assertNotIn("mmproj", text)
        self.assertEqual(self.pull(REPO + ":q4_k_m").name, "M-Q4_K_M.gguf")
        self.assertEqual(self.pull(REPO + ":M-Q8_0.gguf").name, "M-Q8_0.gguf")
        first = self.pull(REPO + ":BF16")
        self.assertEqual(first.name, "M-BF16-00001-of-00002.gguf")
        self.assertTrue((first.parent / "M-BF16-00002-of-00002.gguf").is_file())
        self.refuses(REPO + ":Q9", words=["no quantisation 'Q9'", "M-Q8_0.gguf"])

    def test_a_revision_is_a_branch_or_a_commit(self):
        commit = self.hub.add(REPO, tiny_model(), revisions=("main", "refs/pr/1", "v1"))
        self.pull(REPO, "--revision", "refs/pr/1")
        self.assertEqual((self.cache / FOLDER / "refs/refs/pr/1").read_text(), commit)
        self.pull(REPO, "--revision", commit)
        self.assertFalse((self.cache / FOLDER / "refs/main").exists())
        self.refuses(REPO, "--revision", "v2", words=["404", "no such revision"])
        self.refuses(REPO, "--revision", "../../x", words=["--revision"], code=2)
        inspected = self.kogia("inspect", f"{REPO}@refs/pr/1")
        self.assertEqual(inspected.returncode, 0, inspected.stderr)

    def test_a_model_is_named_by_repository_once_it_is_pulled(self):
        self.hub.add(REPO, tiny_model())
        before = self.kogia("inspect", REPO)
        self.assertEqual(before.returncode, 1)
        self.assertIn(f"`kogia pull {REPO}`", before.stderr)
        self.pull(REPO)
        self.hub.log.clear()
        (self.folder / "ids").write_text("1 2 3")
        for command in (["inspect", REPO], ["run", REPO, "--ids", str(self.folder / "ids"), "--max-tokens", "2", "--json"]):
            done = self.kogia(*command)
            self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.hub.log, [], "a pulled model needs no network")
        self.assertIn("kogia pull org/tiny:Q4_0", self.kogia("inspect", REPO + ":Q4_0").stderr)

    def test_a_local_path_wins_over_a_repository(self):
        done = subprocess.run([KOGIA, "inspect", "data/golden"], cwd=GOLDEN.parents[1], env=self.environment(),
                              capture_output=True, text=True)
        self.assertNotIn("pull", done.stderr)

    def test_half_a_model_of_another_program_is_named_as_such(self):
        self.hub.add(REPO, sharded_model([5000, 6000]))
        path = self.pull(REPO)
        (path / "model-00002-of-00002.safetensors").unlink()
        done = self.kogia("inspect", REPO)
        self.assertIn("only a part of it is there: no model-00002-of-00002.safetensors", done.stderr)

    def test_a_second_pull_fetches_nothing(self):
        self.hub.add(REPO, tiny_model())
        self.pull(REPO)
        self.hub.log.clear()
        facts = json.loads(self.kogia("pull", REPO, "--json").stdout)
        self.assertEqual(self.downloads(), [])
        self.assertEqual(facts["fetched_bytes"], 0)
        self.assertEqual(facts["revision"], "main")
        self.assertEqual({f["path"] for f in facts["files"]}, {"config.json", "generation_config.json", "model.safetensors"})

    def test_verify_mends_a_damaged_blob(self):
        files = tiny_model()
        self.hub.add(REPO, files)
        path = self.pull(REPO)
        blob = (path / "model.safetensors").resolve()
        blob.write_bytes(bytes(len(files["model.safetensors"])))
        self.pull(REPO, "--verify")
        self.nothing_wrong()

    def test_equal_files_are_fetched_once_and_empty_ones_not_at_all(self):
        files = {"config.json": b"", "generation_config.json": b"", "model.safetensors": safetensors(5000)}
        self.hub.add(REPO, files)
        path = self.pull(REPO)
        self.assertEqual((path / "config.json").read_bytes(), b"")
        self.assertEqual(len(self.downloads()), 2, "the weights: at the hub and where it sends us")

    def test_hashes_come_from_headers_where_the_listing_has_none(self):
        self.hub.add(REPO, tiny_model())
        self.hub.faults = Faults(bare_listing=True)
        self.pull(REPO)
        self.assertEqual({a.method for a in self.hub.log if a.at_cdn}, {"GET"}, "HEAD is for the hub alone")
        self.nothing_wrong()


class Network(Pull):
    def big(self, size=50 * MIB):
        data = noise(size, 7)
        self.hub.add(REPO, {"config.json": b"{}", "model.safetensors": data})
        return data

    def test_large_files_come_in_ranges_over_several_connections(self):
        self.big()
        self.pull(REPO)
        ranges = {a.range for a in self.downloads() if a.at_cdn}
        self.assertEqual(ranges, {f"bytes={i * 16 * MIB}-{min((i + 1) * 16, 50) * MIB - 1}" for i in range(4)})
        self.nothing_wrong()

    def test_cut_connections_continue_where_they_were(self):
        data = self.big(20 * MIB)
        self.hub.faults = Faults(cut_after=[1, 3 * MIB, 0, 5 * MIB + 1, 100_000, 7])
        self.pull(REPO, "--connections", "2")
        begins = [int(a.range.split("=")[1].split("-")[0]) for a in self.downloads() if a.range]
        self.assertTrue(any(b % (16 * MIB) for b in begins), begins)
        self.assertEqual((self.cache / FOLDER / "blobs" / blob_of(data)).read_bytes(), data)

    def test_servers_without_ranges_send_it_whole(self):
        data = self.big(20 * MIB)
        self.hub.faults = Faults(no_ranges=True, cut_after=[17 * MIB, 1000])
        self.pull(REPO)
        self.assertEqual((self.cache / FOLDER / "blobs" / blob_of(data)).read_bytes(), data)
        self.nothing_wrong()

    def test_a_server_that_forgets_ranges_on_the_way_does_no_harm(self):
        data = self.big(20 * MIB)
        self.hub.faults = Faults(cut_after=[2 * MIB], ranges_for=1)
        done = self.kogia("pull", REPO, "--retries", "1", "--connections", "1")
        self.assertIn("the whole came", done.stderr)
        self.assertEqual(done.returncode, 1)
        self.nothing_wrong()
        self.hub.faults = Faults()
        self.pull(REPO)
        self.assertEqual((self.cache / FOLDER / "blobs" / blob_of(data)).read_bytes(), data)

    def test_a_server_that_always_cuts_is_given_up_and_what_came_is_kept(self):
        self.big(20 * MIB)
        self.hub.faults = Faults(cut_after=[5 * MIB] + [0] * 500)
        self.refuses(REPO, "--retries", "1", "--connections", "1")
        self.hub.faults = Faults()
        self.hub.log.clear()
        done = self.kogia("pull", REPO)
        self.assertIn("from an earlier run", done.stderr)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn("bytes=0-", {a.range[:8] for a in self.downloads()})
        self.nothing_wrong()

    def test_a_cut_file_without_ranges_gives_up_too(self):
        self.big(20 * MIB)
        self.hub.faults = Faults(no_ranges=True, cut_after=[18 * MIB] * 500)
        self.refuses(REPO, "--retries", "2")

    def test_wrong_bytes_are_fetched_anew_once_and_then_refused(self):
        self.hub.add(REPO, {"config.json": b"{}", "model.safetensors": noise(20_000)})
        self.hub.faults = Faults(wrong_bytes=1)
        self.pull(REPO)
        shutil.rmtree(self.cache)
        self.hub.faults = Faults(wrong_bytes=1000)
        self.refuses(REPO, words=["has not the hash", "twice"])
        self.assertFalse((self.cache / FOLDER / "refs").exists())

    def test_damaged_remains_of_an_earlier_run_do_no_harm(self):
        data = self.big(20 * MIB)
        self.hub.faults = Faults(cut_after=[10 * MIB] + [0] * 100)
        self.refuses(REPO, "--retries", "0", "--connections", "1")
        incomplete, = self.incomplete()
        kept = incomplete.read_bytes()
        self.hub.faults = Faults()
        for damaged in (kept[:1000], b"", bytes([kept[5] ^ 1]).join([kept[:5], kept[6:]]), kept[:-3] + b"\xff\xff\xff", kept * 2,
                        data[:-1] + b"x"):
            with self.subTest(bytes=len(damaged)):
                shutil.rmtree(self.cache / FOLDER / "snapshots")
                (self.cache / FOLDER / "blobs" / blob_of(data)).unlink(missing_ok=True)
                incomplete.write_bytes(damaged)
                self.pull(REPO)
                self.nothing_wrong()

    def test_lengths_that_do_not_fit_the_listing_are_refused(self):
        for fault, size in ((Faults(length_add=5), 20 * MIB), (Faults(length_add=5), 20_000), (Faults(body_add=5), 20_000)):
            with self.subTest(fault=fault, size=size):
                shutil.rmtree(self.cache, ignore_errors=True)
                self.hub.add(REPO, {"config.json": b"{}", "model.safetensors": noise(size)})
                self.hub.faults = fault
                self.refuses(REPO, "--retries", "1", words=["listing"])

    def test_busy_servers_are_asked_again_as_they_say(self):
        self.hub.add(REPO, tiny_model())
        self.hub.faults = Faults(statuses=[(503, {}), (429, {"Retry-After": "1"}), (500, {})], listing_statuses=[(429, {"Retry-After": "0"})])
        self.pull(REPO, "--connections", "1")
        self.hub.faults = Faults(listing_statuses=[(429, {"Retry-After": "100000"})])
        self.refuses(REPO, words=["429", "too many requests", "asks to wait 100000 s"])
        self.hub.faults = Faults(listing_statuses=[(500, {})] * 2)
        self.refuses(REPO, "--retries", "1", words=["500"])

    def test_expired_addresses_are_asked_for_anew(self):
        self.big()
        self.hub.faults = Faults(signed_uses=2)
        self.pull(REPO, "--connections", "1")
        self.assertEqual(len([a for a in self.downloads() if "/resolve/" in a.path and "safetensors" in a.path]), 2)
        self.nothing_wrong()

    def test_a_server_that_hangs_is_given_up(self):
        self.hub.add(REPO, tiny_model())
        self.hub.faults = Faults(hang_s=60)
        self.refuses(REPO, "--retries", "0", env={"HF_HUB_DOWNLOAD_TIMEOUT": "1"})

    def test_no_server_at_all(self):
        self.refuses(REPO, "--retries", "0", env={"HF_ENDPOINT": "http://127.0.0.1:9"}, words=["127.0.0.1", "HF_ENDPOINT"])
        self.refuses(REPO, env={"HF_ENDPOINT": "ftp://x"}, words=["HF_ENDPOINT"], code=2)
        self.refuses(REPO, env={"HF_HUB_OFFLINE": "1"}, words=["HF_HUB_OFFLINE"], code=2)


class Token(Pull):
    def test_the_token_goes_to_the_hub_and_nowhere_else(self):
        self.hub.add(REPO, tiny_model(), gated=True)
        self.pull(REPO, env={"HF_TOKEN": "hf_right"})
        self.assertEqual({a.token for a in self.hub.log if not a.at_cdn}, {"hf_right"})
        self.assertEqual({a.token for a in self.hub.log if a.at_cdn}, {""})
        self.assertTrue(any(a.at_cdn for a in self.hub.log))

    def test_redirects_to_another_host_lose_the_token_from_the_start(self):
        self.hub.add(REPO, tiny_model())
        self.hub.faults = Faults(redirect_to=self.hub.endpoint.replace("127.0.0.1", "localhost"))
        self.refuses(REPO, "--retries", "0", env={"HF_TOKEN": "hf_right"}, words=["redirects"])
        self.assertEqual([a.token for a in self.hub.log[:2]], ["hf_right", ""])
        self.assertNotIn("hf_right", [a.token for a in self.hub.log[1:]])

    def test_redirects_to_other_protocols_are_refused(self):
        self.hub.add(REPO, tiny_model())
        for target in ("file:///etc/passwd?", "ftp://127.0.0.1/"):
            self.hub.faults = Faults(redirect_to=target)
            self.refuses(REPO, "--retries", "0")

    def test_the_token_is_found_where_hugging_face_keeps_it(self):
        self.hub.add(REPO, tiny_model(), gated=True)
        home = self.folder / "home"
        home.mkdir()
        (home / "token").write_text("hf_right\n")
        (self.folder / "other").write_text("hf_right")
        for env in ({"HF_HOME": str(home)}, {"HF_TOKEN_PATH": str(self.folder / "other")}, {"HUGGING_FACE_HUB_TOKEN": "hf_right"}):
            self.pull(REPO, env=env)
        self.refuses(REPO, env={"HF_HOME": str(home), "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}, words=["gated"])
        self.refuses(REPO, env={"HF_TOKEN": "hf_\nX: y"}, words=["HF_TOKEN"], code=2)

    def test_refusals_say_how_to_mend_them(self):
        self.hub.add(REPO, tiny_model(), gated=True)
        self.hub.add("org/closed", tiny_model(), gated="closed")
        self.refuses(REPO, words=["401", "gated", "ask for access", "HF_TOKEN", "settings/tokens"])
        self.refuses("org/closed", env={"HF_TOKEN": "hf_right"}, words=["403", "gated", "account of your token"])
        self.refuses(REPO, env={"HF_TOKEN": "hf_wrong"}, words=["401", "token is not accepted"])
        self.refuses("org/absent", words=["401", "check the name", "HF_TOKEN"])
        self.refuses("org/absent", env={"HF_TOKEN": "hf_right"}, words=["404", "no such repository"])
        for word in ("hf_right", "hf_wrong"):
            self.assertNotIn(word, self.refuses("org/absent", env={"HF_TOKEN": word}))


class Malice(Pull):
    def listing(self, *names, **more):
        siblings = [{"rfilename": n, "size": 5, "blobId": "0" * 40} for n in names]
        return {"sha": "a" * 40, "siblings": siblings, **more}

    def test_names_that_lead_out_are_refused(self):
        self.hub.add(REPO, tiny_model())
        for name in ("../x.safetensors", "/etc/x", "a/../../x", "a//b", "./a", "a/.", "..", "", "a\0b"):
            with self.subTest(name=name):
                self.hub.faults = Faults(listing=self.listing("config.json", name))
                self.refuses(REPO, words=["is no name of a file inside a repository"])
                self.assertEqual(list(self.folder.iterdir()), [])

    def test_listings_that_lie_are_refused(self):
        self.hub.add(REPO, tiny_model())
        good = self.listing("config.json", "model.safetensors")
        blobs = lambda **fields: {"sha": "a" * 40, "siblings": [{"rfilename": "config.json", **fields}]}
        for answer in (b"", b"<html>", b"[" * 100_000, b'{"a":' * 50_000, {**good, "sha": "../../x"}, {**good, "sha": 5},
                       {"sha": "a" * 40}, {**good, "siblings": [1]}, blobs(size=-1, blobId="0" * 40), blobs(size=1.5),
                       blobs(size=1 << 60), blobs(size=5, blobId="../x"), blobs(size=5, lfs={"sha256": "../../x"}),
                       {**good, "siblings": good["siblings"] * 2}, b"\xff\xfe", b" " * (33 * MIB)):
            with self.subTest(answer=str(answer)[:40]):
                self.hub.faults = Faults(listing=answer)
                self.refuses(REPO, "--retries", "0")
                self.assertEqual(list(self.folder.iterdir()), [])

    def test_an_index_that_leads_out_is_refused(self):
        for name in ("../../x.safetensors", "/etc/passwd", "config.json", "absent.safetensors"):
            index = json.dumps({"weight_map": {"w": name}}).encode()
            self.hub.add(REPO, {"config.json": b"{}", "model.safetensors.index.json": index, "model-1.safetensors": b"x"})
            self.refuses(REPO)

    def test_links_in_the_cache_are_not_written_through(self):
        data = noise(20_000)
        self.hub.add(REPO, {"config.json": b"{}", "model.safetensors": data})
        victim = self.folder / "victim"
        blobs = self.cache / FOLDER / "blobs"
        blobs.mkdir(parents=True)
        incomplete = blobs / (blob_of(data) + ".kogia.incomplete")
        for plant in (lambda: incomplete.symlink_to(victim), lambda: os.link(victim, incomplete), lambda: os.mkfifo(incomplete)):
            victim.write_text("untouched")
            plant()
            self.refuses(REPO, words=[incomplete.name])
            incomplete.unlink()
            self.assertEqual(victim.read_text(), "untouched")
        shutil.rmtree(blobs)
        (self.folder / "elsewhere").mkdir()
        blobs.symlink_to(self.folder / "elsewhere")
        self.refuses(REPO, words=["a link"])
        self.assertEqual(list((self.folder / "elsewhere").iterdir()), [])

    def test_what_a_server_says_cannot_command_the_terminal(self):
        self.hub.faults = Faults(listing_statuses=[(404, {"X-Error-Message": "\x1b[2Jgone"})])
        self.assertNotIn("\x1b", self.refuses(REPO))


class Ends(Pull):
    """Full disks, Ctrl-C, kill -9."""

    def test_a_file_that_may_not_grow_is_reported_and_continued(self):
        self.hub.add(REPO, {"config.json": b"{}", "model.safetensors": noise(3 * MIB)})
        self.refuses(REPO, limit=2 * MIB, words=["cannot write"])
        self.pull(REPO)
        self.nothing_wrong()

    @contextlib.contextmanager
    def small_disk(self, mib):
        self.cache.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(self.cache)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
            self.skipTest("mounting a small disk needs root")
        try:
            yield
        finally:
            subprocess.run(["umount", "-l", str(self.cache)], check=True)

    def test_a_disk_too_small_is_seen_before_anything_is_fetched(self):
        self.hub.add(REPO, {"config.json": b"{}", "model.safetensors": noise(30 * MIB)})
        with self.small_disk(24):
            self.refuses(REPO, words=["30.0 MiB are still to be fetched", "free some space"])
            self.assertEqual(self.downloads(), [])

    def test_a_disk_that_fills_up_meanwhile_is_reported_and_continued(self):
        self.hub.add(REPO, {"config.json": b"{}", "model.safetensors": noise(30 * MIB)})
        with self.small_disk(48):
            ballast = self.cache / "ballast"
            self.hub.faults = Faults(before_body=lambda name: name == "config.json" or ballast.write_bytes(bytes(26 * MIB)))
            self.refuses(REPO, words=["No space left on device", "free some space"])
            self.hub.faults = Faults()
            ballast.unlink()
            done = self.kogia("pull", REPO)
            self.assertIn("from an earlier run", done.stderr)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.nothing_wrong()

    def start(self, *arguments):
        return subprocess.Popen([KOGIA, "pull", REPO, *arguments], env=self.environment(), stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def wait_for(self, condition):
        end = time.monotonic() + PATIENCE_S
        while not condition():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)

    def test_ctrl_c_keeps_what_has_arrived(self):
        self.hub.add(REPO, {"config.json": b"{}", "model.safetensors": noise(20 * MIB)})
        self.hub.faults = Faults(bytes_per_s=100_000)
        running = self.start()
        self.wait_for(lambda: any(p.stat().st_blocks > 500 for p in self.incomplete()))
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=PATIENCE_S)
        self.assertEqual(running.returncode, 1)
        self.assertIn("interrupted", err)
        self.assertIn(f"`kogia pull {REPO}` continues", err)
        self.hub.faults = Faults()
        self.assertIn("from an earlier run", self.kogia("pull", REPO).stderr)
        self.nothing_wrong()

    def test_two_pulls_at_once_fetch_each_file_once(self):
        self.hub.add(REPO, {"config.json": b"{}", "model.safetensors": noise(2 * MIB)})
        go_on = threading.Event()
        self.hub.faults = Faults(before_body=lambda name: go_on.wait(PATIENCE_S))
        first = self.start()
        self.wait_for(self.downloads)
        second = self.start()
        self.assertIn("another pull", second.stderr.readline())
        go_on.set()
        errors = [p.communicate(timeout=PATIENCE_S)[1] for p in (first, second)]
        self.assertEqual((first.returncode, second.returncode), (0, 0), errors)
        self.assertEqual(len([a for a in self.downloads() if a.at_cdn]), 1)
        self.nothing_wrong()

    def test_thirty_kills_leave_nothing_that_loads_wrong(self):
        model = tiny_model()
        files = {**sharded_model([3 * MIB, 17 * MIB, 40_000]), "config.json": model["config.json"], "tokenizer.json": noise(9000, 8)}
        self.hub.add(REPO, files)
        folder = self.cache / FOLDER
        folder.mkdir(parents=True)
        wanted = [n for n in files if n != "extra.safetensors"]
        (folder / "wanted").write_text("\n".join(wanted))  # nothing_wrong() holds snapshots with a config.json to it
        moments = random.Random(5)
        # Slow at first so that kills fall into the transfer, quick at last so that they fall into its end.
        for i in range(30):
            self.hub.faults = Faults(bytes_per_s=4 * MIB if i < 15 else 0)
            running = self.start("--connections", "3")
            time.sleep(moments.uniform(0.02, 0.3 if i < 15 else 0.12))
            running.kill()
            running.communicate()
            self.nothing_wrong()
            if (folder / "refs/main").exists():
                self.assertTrue(all((folder / "snapshots" / (folder / "refs/main").read_text() / n).is_file() for n in wanted))
                if i % 2:
                    shutil.rmtree(folder / "refs")
                    shutil.rmtree(folder / "snapshots")
                    shutil.rmtree(folder / "blobs")
        self.hub.faults = Faults()
        path = self.pull(REPO)
        self.assertEqual(self.incomplete(), [])
        self.assertEqual({n: hashlib.sha256((path / n).read_bytes()).digest() for n in wanted},
                         {n: hashlib.sha256(files[n]).digest() for n in wanted})

    def test_off_a_terminal_progress_is_plain_lines(self):
        self.hub.add(REPO, {"config.json": b"{}", "model.safetensors": noise(3 * MIB)})
        self.hub.faults = Faults(bytes_per_s=2 * MIB)
        done = self.kogia("pull", REPO)
        self.assertNotIn("\r", done.stderr)
        self.assertNotIn("\x1b", done.stderr)
        self.assertEqual(self.kogia("pull", REPO, "--quiet").stderr, "")


if __name__ == "__main__":
    KOGIA = os.path.abspath(sys.argv.pop(1))
    unittest.main()
