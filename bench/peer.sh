#!/bin/sh
# Build llama.cpp outside the project as a peer to measure against, from the source package of llama-cpp-python on PyPI, and
# print the folder of its programs. Nothing of it enters the project. About ten minutes on two cores, cached.
# usage: peer.sh [DIR]      default ~/.cache/ashlar-peer
#   PEER_FLAGS="-mno-amx-int8"   adds compiler flags to the native build
#   PEER_LEVEL=avx2              builds for AVX2+FMA+F16C instead of the machine's own level
set -eu
version=0.3.36
key=$( (grep -m1 ^flags /proc/cpuinfo; echo "${PEER_FLAGS:-}${PEER_LEVEL:-}") | md5sum | cut -c1-8)
dir=${1:-$HOME/.cache/ashlar-peer}/llama.cpp-$version-$key
if [ -x "$dir/bin/llama-server" ]; then echo "$dir/bin"; exit 0; fi
mkdir -p "$dir"
cd "$dir"
level="-DGGML_NATIVE=ON"
[ "${PEER_LEVEL:-}" = avx2 ] && level="-DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON"
{
  python3 -m venv venv
  ./venv/bin/pip -q install --upgrade pip scikit-build-core
  ./venv/bin/pip -q download --no-deps --no-build-isolation --no-binary :all: -d src "llama-cpp-python==$version"
  tar xzf "src/llama_cpp_python-$version.tar.gz"
  cmake -S "llama_cpp_python-$version/vendor/llama.cpp" -B build -G Ninja -DCMAKE_BUILD_TYPE=Release $level \
    "-DCMAKE_C_FLAGS=${PEER_FLAGS:-}" "-DCMAKE_CXX_FLAGS=${PEER_FLAGS:-}" -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF \
    -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_UI=OFF
  ninja -C build llama-bench llama-quantize llama-imatrix llama-perplexity llama-tokenize llama-completion llama-server
  ln -sfn build/bin bin
} >build.log 2>&1
echo "$dir/bin"
