# What the two download scripts share; they define fetch FOLDER URL, and source this file with their
# arguments. Not to be run by itself.

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

mkdir -p "$folder"
for name in "${names[@]}"; do
    if [ -d "$folder/$name" ]; then
        echo "$folder/$name is there already"
        continue
    fi
    if ! fetch "$folder" "$container/$name.tar"; then
        echo "Error: $container/$name.tar was not downloaded. See datasets/README.md, \"Converters\"." >&2
        exit 1
    fi
    # unpacked beside its place first: a folder under its name is always complete
    mkdir -p "$folder/.unpacking"
    tar -xf "$folder/$name.tar" -C "$folder/.unpacking"
    mv "$folder/.unpacking/$name" "$folder/$name"
    rmdir "$folder/.unpacking"
    rm "$folder/$name.tar"
done
