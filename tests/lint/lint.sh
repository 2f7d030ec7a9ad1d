#!/usr/bin/env bash
# Format, layering, house rules, shell and Python syntax, clang's thread-safety analysis and clang-tidy.
set -uo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.."
status=0
step() {
  local name=$1
  shift
  if output=$("$@" 2>&1); then
    echo "ok      $name"
  else
    echo "FAILED  $name"
    printf '%s\n' "$output" | tail -n 60
    status=1
  fi
}

format() { git ls-files '*.h' '*.cc' | xargs clang-format-19 --dry-run --Werror; }
shell_syntax() { bash -n dev .ci/run tests/lint/lint.sh bench/run.sh; }
python_syntax() { git ls-files '*.py' | xargs python3 -m py_compile; }
clang_build() { cmake --preset clang -DCMAKE_CXX_COMPILER_LAUNCHER=ccache && cmake --build build/clang; }
tidy() {
  git ls-files 'base/*.cc' 'crypto/*.cc' 'erasure/*.cc' 'zdb/*.cc' 'zstor/*.cc' 'fs/*.cc' 'cli/*.cc' 'lifecycle/*.cc' |
    xargs -P 2 -n 4 clang-tidy-19 -p build/clang --quiet --warnings-as-errors='*'
}

step format format
step layering python3 tests/lint/layering.py .
step rules python3 tests/lint/rules.py .
step shell shell_syntax
step python python_syntax
# Minutes, not seconds: clang's thread-safety analysis and clang-tidy over everything.
if [ "${1:-}" = --full ]; then
  step "clang build (thread-safety analysis)" clang_build
  if [ $status -eq 0 ]; then step tidy tidy; fi
fi
exit $status
