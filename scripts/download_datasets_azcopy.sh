#!/usr/bin/env bash
# Download METRO's data sets into datasets/ with azcopy, resuming what was begun.
#   scripts/download_datasets_azcopy.sh [NAME ...]      default: all that the published commands need
set -euo pipefail
cd "$(dirname "$0")/.."

# METRO's public container: https://github.com/microsoft/MeshTransformer, docs/DOWNLOAD.md.
container="https://datarelease.blob.core.windows.net/metro/datasets"
folder="${SMPLER_DATASETS:-datasets}"
names=("$@")
if [ ${#names[@]} -eq 0 ]; then
    names=(Tax-H36m-coco40k-Muco-UP-Mpii human3.6m coco_smpl muco up3d mpii 3dpw)
fi

cat >&2 <<'MESSAGE'
Since early 2025 this host has answered "409 Public access is not permitted on this storage account".
If it still does, this script ends with that error, and the data has to be made from the original
downloads: datasets/README.md, "Converters", says which and how. Continuing in 5 seconds.
MESSAGE
sleep "${SMPLER_DOWNLOAD_DELAY:-5}"

azcopy="$(command -v "${AZCOPY:-azcopy}" || true)"
if [ -z "$azcopy" ]; then
    echo "Error: azcopy is not on the PATH; set AZCOPY=/path/to/azcopy or use" \
        "scripts/download_datasets_wget.sh." >&2
    exit 1
fi
mkdir -p "$folder"
for name in "${names[@]}"; do
    if [ -d "$folder/$name" ]; then
        echo "$folder/$name is there already"
        continue
    fi
    # azcopy keeps its own plan of a broken transfer; a whole file on disk is not fetched again
    if ! "$azcopy" copy "$container/$name.tar" "$folder/$name.tar" --overwrite=ifSourceNewer; then
        echo "Error: $container/$name.tar was not downloaded. See datasets/README.md, \"Converters\"." >&2
        exit 1
    fi
    # unpacked beside its place first: a folder under its name is a whole one
    mkdir -p "$folder/.unpacking"
    tar -xf "$folder/$name.tar" -C "$folder/.unpacking"
    mv "$folder/.unpacking/$name" "$folder/$name"
    rmdir "$folder/.unpacking"
    rm "$folder/$name.tar"
done
