#!/usr/bin/env bash
# Runs benchmarks of the release build: all, or those named. Prints tables; results go to build/bench/ as JSON, with the
# machine they were measured on.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
readonly bin=build/release/bin out=build/bench
mkdir -p "$out"
all=(crypto erasure codec zdb zdb_scale archive mount mount_archive black_hole lifecycle)
if [ $# -eq 0 ]; then set -- "${all[@]}"; fi

machine() {
  printf 'commit %s, %s, %s cores, %s, kernel %s\n' "$(git rev-parse --short HEAD)" \
    "$(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2 | xargs)" "$(nproc)" "$(g++ --version | head -1)" "$(uname -r)"
}
machine | tee "$out/machine.txt"

for name in "$@"; do
  echo "== $name"
  case $name in
    crypto | erasure | codec) "$bin/${name}_bench" --benchmark_out="$out/$name.json" --benchmark_out_format=json ;;
    zdb)
      "$bin/zdb_engine_bench" --benchmark_out="$out/zdb.json" --benchmark_out_format=json
      python3 bench/zdb_server.py --json "$out/zdb_server.json"
      ;;
    zdb_scale)
      scratch=$(mktemp -d "${QSFS_BENCH_DIR:-/tmp}/qsfs-zdb-scale-XXXXXX")
      trap 'rm -rf "$scratch"' EXIT
      for mode in user seq; do
        "$bin/zdb_scale" fill "$scratch/$mode" "$mode" 10000000
        "$bin/zdb_scale" open "$scratch/$mode" "$mode" 10000000
        rm -rf "${scratch:?}/$mode"
      done
      ;;
    archive)
      sample=$(mktemp)
      trap 'rm -f "$sample"' EXIT
      tar -cf "$sample" -C / usr/include 2>/dev/null
      "$bin/archive_bench" "$sample" --zdb "$bin/qsfs-zdb"
      ;;
    mount) python3 bench/mount.py --json "$out/mount.json" ;;
    mount_archive) python3 bench/mount_archive.py ;;
    black_hole) python3 bench/black_hole.py --json "$out/black_hole.json" ;;
    lifecycle) python3 bench/lifecycle.py ;;
    *)
      echo "bench: there is no $name; there are: ${all[*]}" >&2
      exit 2
      ;;
  esac
done
