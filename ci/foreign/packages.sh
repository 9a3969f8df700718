# shellcheck shell=bash
# The packages of the clients that are not ours, from the Python package index, pinned, in `target/foreign/`: PYTHONPATH names
# them when this was sourced. Without the index it fails rather than skip. Called in the project's folder.
foreign_packages() {
  local packages new
  command -v python3 >/dev/null || { echo "ci/foreign: python3 is missing: the clients are Python packages" >&2; return 1; }
  packages=${CARGO_TARGET_DIR:-$PWD/target}/foreign/$({ python3 --version; cat ci/foreign/requirements.txt; } | sha256sum | cut -c1-16)
  if [[ ! -d $packages ]]; then
    mkdir -p "${packages%/*}"
    new=$(mktemp -d "${packages%/*}/.new.XXXXXX")
    # A folder and not a virtual environment: Debian's Python makes those only with another package.
    python3 -m pip install --quiet --no-cache-dir --no-deps --only-binary :all: --disable-pip-version-check --root-user-action ignore \
      --target "$new" -r ci/foreign/requirements.txt || { rm -rf "$new"; echo "ci/foreign: the clients' packages could not be installed (above)" >&2; return 1; }
    mv -T "$new" "$packages" 2>/dev/null || rm -rf "$new"
  fi
  export PYTHONPATH=$packages
}
foreign_packages
