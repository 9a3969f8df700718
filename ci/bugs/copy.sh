# shellcheck shell=bash
# A copy of the tree to plant bugs in, with a target folder of its own. Sourced from the root of the repository.

root=$PWD scratch=$PWD/target/bugs tree=$PWD/target/bugs/tree
mkdir -p "$tree"
export CARGO_TARGET_DIR=$scratch/target CARGO_INCREMENTAL=1 CARGO_PROFILE_RELEASE_DEBUG=0 GIT_CEILING_DIRECTORIES=$scratch

# Makes the copy equal to the tree. A file that is equal already is left alone, so that cargo builds no more than it must.
copy() {
  local file
  git ls-files -co --exclude-standard -z | sort -z > "$scratch/files"
  (cd "$tree" && find . -type f -not -path './reports/latest/*' -printf '%P\0' | sort -z) > "$scratch/copied"
  comm -z -13 "$scratch/files" "$scratch/copied" | (cd "$tree" && xargs -0 -r rm -f)
  while IFS= read -r -d '' file; do
    [[ -f $file ]] || continue
    cmp -s "$file" "$tree/$file" || { mkdir -p "$tree/$(dirname "$file")"; cp "$file" "$tree/$file"; }
  done < "$scratch/files"
}

# Puts a patch into the copy.
plant() { (cd "$tree" && git apply "$root/$1") 2> "$scratch/apply.log"; }

# The fields of a patch's first line: what must find it, where, and what is wrong.
field() { sed -n '1s/^# *//p' "$1" | cut -d'|' -f"$2" | sed 's/^ *//; s/ *$//'; }

# `SCENARIO SEED INVARIANT` for everything that broke in the last run, from its result file: `result.json` or `drill.json`.
broken_in_result() {
  awk -F'"' '
    $2 == "name" { scenario = $4 }
    $2 == "seed" { split($3, part, /[:, ]+/); seed = part[2] }
    $2 == "all_broken" { inside = 1; next }
    inside && /]/ { inside = 0 }
    inside { print scenario, seed, $2 }
  ' "$tree/reports/latest/$1"
}
