#!/usr/bin/env bash
# Fetch the built OHIF viewer that tests/e2e/test_ohif.py opens: one version, checked by its hash. It is no part of the product.
# Left out: the neural networks' runtime (139 MB) and the microscopy viewer, which no radiology study asks for.
set -euo pipefail
cd "$(dirname "$0")/.."
version=3.13.2
sha512="5997719a9986eeba85816f5924b71b82bdd70ad2e2d4a0cd3e831a798e4f3deea3e06e1f8c48e393271933a0ba664d85f3b04ac457e9abe8dde715d907d13c10"
target=".venv/ohif-$version"

if [ ! -d "$target" ]; then
  work="$(mktemp -d .venv/ohif.XXXXXX)"
  trap 'rm -rf "$work"' EXIT
  PATH="$PWD/.venv/bin:$PATH" npm pack --silent --pack-destination "$work" "@ohif/app@$version" >/dev/null
  echo "$sha512  $work/ohif-app-$version.tgz" | sha512sum --check --quiet --strict
  mkdir "$work/dist"
  tar -xzf "$work/ohif-app-$version.tgz" -C "$work/dist" --strip-components=2 --no-same-owner \
    --exclude='package/dist/ort' --exclude='package/dist/dicom-microscopy-viewer' package/dist
  mv -T "$work/dist" "$target"
fi
echo "$PWD/$target"
