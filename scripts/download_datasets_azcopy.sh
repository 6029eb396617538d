#!/usr/bin/env bash
# Download METRO's data sets into datasets/ with azcopy; an interrupted download is resumed.
#   scripts/download_datasets_azcopy.sh [NAME ...]      default: all that the published commands need
set -euo pipefail
cd "$(dirname "$0")/.."

azcopy="$(command -v "${AZCOPY:-azcopy}" || true)"
if [ -z "$azcopy" ]; then
    echo "Error: azcopy is not on the PATH; set AZCOPY=/path/to/azcopy or use" \
        "scripts/download_datasets_wget.sh." >&2
    exit 1
fi
fetch() { # FOLDER URL; azcopy keeps its own plan of a broken transfer
    "$azcopy" copy "$2" "$1/${2##*/}" --overwrite=ifSourceNewer
}
source scripts/download_datasets.sh
