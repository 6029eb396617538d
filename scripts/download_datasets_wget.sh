#!/usr/bin/env bash
# Download METRO's data sets into datasets/ with wget; an interrupted download is resumed.
#   scripts/download_datasets_wget.sh [NAME ...]      default: all that the published commands need
set -euo pipefail
cd "$(dirname "$0")/.."

fetch() { # FOLDER URL
    wget --continue --tries=3 --directory-prefix="$1" "$2"
}
source scripts/download_datasets.sh
