#!/usr/bin/env python3
"""Planted bugs: what the tests of the local half are worth.

With --backends: the remedies against faulty backends, taken out one by one; the test of that fault, on real processes, must
fail (tests/integration/backend_fault_test.py), or the simulation of a whole volume.

Each bug is one small change of one source, of the kind that people make. It is planted alone (in a copy; the tree is
not touched), the tests are linked with it and run, and they must fail. A bug that passes all of them is a hole.

usage: planted_bugs.py [--backends] [NAME...]      QSFS_BUILD_DIR: a configured build (default: build/dev)

When a change of the source makes a bug impossible to plant (its text is gone), the list is brought up to date, not
shortened.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("QSFS_BUILD_DIR", ROOT / "build" / "dev")).resolve()
BUILD_DEADLINE = 3600
TEST_DEADLINE = 600

# The tests, the quick ones first; what they are given to run.
TESTS = {
    "fs_log_test": {},
    "fs_volume_test": {"GTEST_FILTER": "FragmentedFileTest.*"},
    "local_sim_test": {"QSFS_SIM_SEEDS": "400"},
}

# Name, what it does wrong, file, text, replacement.
BUGS = [
    ("ack-before-data", "fsync does not sync the data file", "fs/log/log_sync.cc",
     "    done = sync_data();\n", "    unsynced_.clear();\n"),
    ("ack-before-journal", "fsync does not sync the journal", "fs/log/log_sync.cc",
     "  if (done) done = sync_journals();\n", ""),
    ("retry-failed-fsync", "a failed fsync is tried again and called good", "fs/log/log_sync.cc",
     "    fail_for_good(done.error(), Errc::kReadOnly);\n", ""),
    ("redo-not-copied", "the journal gets no copy of payload that it is to cover", "fs/log/log_sync.cc",
     "  if (!copy.empty()) {\n", "  if (copy.refs.size() > 100000) {\n"),
    ("redo-not-restored", "replay leaves copies in the journal", "fs/log/replay.cc",
     "QSFS_TRY(file->pwrite(ref.position, copy));", "QSFS_TRY(file->pwrite(ref.position, copy.first(0)));"),
    ("redo-forgets-half", "only the first piece of unsynced payload is kept", "fs/log/redo.cc",
     "  copy_.refs.push_back(ref);\n", "  if (!copy_.refs.empty()) return;\n  copy_.refs.push_back(ref);\n"),
    ("redo-into-reused-segment", "a segment with copies is begun anew after a restart", "fs/log/replay.cc",
     "last_has_payload_ = last_has_payload_ || !record.payloads.empty();",
     "last_has_payload_ = last_has_payload_ || (!record.payloads.empty() && !record.is_redo());"),
    ("payload-crc-unchecked", "replay believes that payload is there", "fs/log/replay.cc",
     "if (got != ref.length || crc32c(payload_) != ref.crc32c) return false;", "if (got == SIZE_MAX) return false;"),
    ("record-crc-unchecked", "replay takes torn records", "fs/log/journal_format.cc",
     "load_le<std::uint32_t>(record.data() + kCrcAt) != record_crc(record)", "record_crc(record) == 1"),
    ("chain-unchecked", "a segment follows whatever is before it", "fs/log/replay.cc",
     "after->second.start->previous_end == Lsn::at(id, scan.end)", "after->second.start->previous_end.value != 0"),
    ("later-segments-stay", "segments behind a torn tail are not removed", "fs/log/replay.cc",
     "    return remove_segments_from(next(end_.segment()));\n", "    return {};\n"),
    ("tail-not-cut", "what is behind the end of the history stays", "fs/log/replay.cc",
     "        QSFS_TRY(file->truncate(end));\n", ""),
    ("clean-pages-journal", "a replay does not write again what a failed sync lost (journal)", "fs/log/replay.cc",
     "      if (Lsn::at(id, end) > durable_) {\n", "      if (id == SegmentId{}) {\n"),
    ("clean-pages-payload", "a replay does not write again what a failed sync lost (payload)", "fs/log/replay.cc",
     "/*rewrite=*/!is_durable", "/*rewrite=*/false"),
    ("replay-off-by-one", "the first record after the store's is left out", "fs/log/replay.cc",
     "if (record.lsn < applied_ || record.is_redo()) return true;",
     "if (record.lsn <= applied_ || record.is_redo()) return true;"),
    ("apply-before-durable", "what is replayed is applied before it is durable", "fs/log/replay.cc",
     "    QSFS_TRY(datasync_all());\n", ""),
    ("no-directory-sync", "a new segment's names are not made durable", "fs/log/log_segments.cc",
     "  failpoint(kFailPrepareAfterData);\n  QSFS_TRY(disk_.sync_directory(options_.directory));\n",
     "  failpoint(kFailPrepareAfterData);\n"),
    ("failed-write-acknowledged", "a failed write of payload is called good", "fs/log/log_commit.cc",
     "  QSFS_TRY(written);\n", ""),
    ("failed-apply-stays", "a change that the store refused comes back", "fs/log/log_commit.cc",
     "    if (!guarded_store(place.first(4), zeros.first(4)) ||\n        !guarded_store(place.subspan(4), zeros.subspan(4))) {",
     "    if (zeros.empty()) {"),
    ("sums-before-data", "sums vouch for data that is not durable", "fs/log/segment_files.cc",
     "    QSFS_TRY(datasync());\n    QSFS_TRY(write_file_atomically", "    QSFS_TRY(write_file_atomically"),
    ("sums-unchecked", "blocks are read without their sums", "fs/log/segment_files.cc",
     "if (!sums_.matches(block, content)) QSFS_TRY(read_verified(block, content));", ""),
    ("store-ahead-of-log", "the metadata store is written out before the log", "fs/meta/rocks_store.cc",
     "    if (!before_flush_) return;\n", "    if (before_flush_ || !before_flush_) return;\n"),
    ("deferred-rows-left", "the LSN of the metadata store moves before the rows behind it", "fs/meta/rocks_store.cc",
     "    const bool is_last = rows.size() < rows_max;\n", "    const bool is_last = true;\n"),
    ("counters-not-deferred", "counters go ahead of the LSN of the metadata store", "fs/meta/rocks_store.cc",
     "    if (mutation.kind == MutationKind::kAdd) return is_counter(mutation.key);\n", ""),
    ("half-a-truncation", "a truncation that was cut off is not finished", "fs/volume/ops_write.cc",
     "        if ((inode->row.flags & kInodeTruncating) != 0 && end > inode->row.size) break;\n", ""),
]

# The same, and the test that must fail.
BACKEND_BUGS = [
    ("b1-data-shards-only", "a read asks for data shards only", "zstor/shard_fetch.cc",
     "    if (!request_.skip.empty() && request_.skip[index]) continue;\n", "    if (index >= manifest.data_shards) continue;\n",
     "b1_backends_that_are_down"),
    ("b2-late-sets-are-awaited", "an upload waits for its slowest backend", "zstor/put_state.cc",
     "  std::vector<Late> late;\n  {\n", "  std::vector<Late> late;\n  if (late.empty()) return;\n  {\n", "b2_slow_backends"),
    ("b3-no-hedge", "a read waits for the backends that it asked first", "zstor/shard_fetch.cc",
     "      if (now < due) {\n", "      if (now < due || now >= due) {\n", "b3_half_open_backends"),
    ("b4-no-second-connection", "a connection that broke is not made again", "zdb/connection_pool.cc",
     "(is_refusal(error->code) ? kRefusalRetryAfter : next_backoff_locked())",
     "(is_refusal(error->code) ? kRefusalRetryAfter : next_backoff_locked() + std::chrono::hours(1))",
     "b4_replies_that_are_cut"),
    ("b5-bad-shards-used", "shards that do not verify are tried again and again", "zstor/shard_fetch.cc",
     "  drop_bad(decoded.bad);\n", "  if (decoded.bad.size() > 1000) drop_bad(decoded.bad);\n", "b5_wrong_values"),
    ("b6-any-length", "a reply may be of any length", "zdb/reply.cc",
     ("    if (pending.size() <= kReplyLineLenMax) return {};\n", "  if (in.size() > kReplyBytesMax - state_->fed) {\n"),
     ("    if (pending.size() <= SIZE_MAX) return {};\n", "  if (in.size() > SIZE_MAX - state_->fed) {\n"),
     "b6_replies_against_the_protocol"),
    ("b7-no-second-try", "the archiver gives up when backends are full", "fs/archive/archiver.cc",
     "    if (stopping_) return;\n    if (worked) {\n", "    if (stopping_ || !worked) return;\n    if (worked) {\n",
     "b7_full_disks_and_disks_that_fail"),
    ("b8-refusals-forgotten", "a refused password is tried again at once", "zdb/connection_pool.cc",
     "(is_refusal(error->code) ? kRefusalRetryAfter : next_backoff_locked())", "options_.backoff_min", "b8_refused_passwords"),
    ("b9-locked-is-dead", "a locked backend is taken for one that is down", "zstor/backend_health.cc",
     "      return BackendState::kLocked;\n", "      return BackendState::kUnreachable;\n", "b9_locked_namespaces"),
    ("b10-restarts-unseen", "another instance id means nothing", "fs/heal/healer.cc",
     "      known.check = BackendCheck::kSample;\n", "      known.check = BackendCheck::kNone;\n",
     "b10_a_wipe_costs_nothing_else_meanwhile"),
    ("b11-nothing-is-held", "what was archived a moment ago is evicted like everything else", "fs/archive/archiver.cc",
     "mark_archived(id, /*is_held=*/true)", "mark_archived(id, /*is_held=*/false)",
     "b11_what_was_archived_a_moment_ago_is_kept_here"),
    ("b12-acks-believed", "what was acknowledged is not looked at", "fs/archive/archiver.cc",
     "QSFS_ASSIGN(zstor::VerifyReport report, parts_.store.verify(manifest, zstor::VerifyMode::kCheck));",
     "zstor::VerifyReport report; report.good_shards_min = manifest.total_shards;", "b12_backends_that_lie"),
    ("b13-chain-unchecked", "nobody looks whether the backends were rolled back", "fs/archive/archiver.cc",
     "    if (!chain_checked_ && (archived_count_ == 0 || is_unclaimed)) chain_checked_ = true;\n",
     "    if (!chain_checked_ && (is_unclaimed || number(watermark_) != 0)) chain_checked_ = true;\n",
     "b13_backends_that_were_rolled_back"),
    ("b14-check-only", "a scrub that is to read asks the servers for their word", "fs/heal/healer_units.cc",
     "reads ? VerifyMode::kReadBack : VerifyMode::kCheck", "reads ? VerifyMode::kCheck : VerifyMode::kCheck",
     "b14_forged_shards_and_manifests"),
    ("b15-down-is-dead", "a backend that is down for a moment is dead", "fs/heal/healer.cc",
     "known.down_seconds >= whole_seconds(dead_after)", "known.down_seconds >= whole_seconds(dead_after) / 1000",
     "b15_backends_that_flap"),
    ("b16-no-limit", "the cache limit binds no writer", "fs/cache/segment_cache.cc",
     "Status SegmentCache::admit_write(std::uint32_t length) {\n",
     "Status SegmentCache::admit_write(std::uint32_t length) {\n  if (length != 0) return {};\n",
     "b16_all_backends_down_until_the_cache_is_full"),
    ("p5-k-shards-are-enough", "a segment counts as archived with k shards", "fs/archive/archiver.cc",
     "  return manifest.data_shards + std::max(1u, parity / 2);\n", "  return manifest.data_shards;\n", "volume_sim_test"),
    ("b17-removed-is-kept", "shards on backends that left the configuration count", "fs/heal/healer.cc",
     "return found == backends_.end() || found->second.is_lost;", "return found != backends_.end() && found->second.is_lost;",
     "b17_changes_of_the_configuration_with_crashes_between"),
    ("b11-not-stored-again", "what all backends have lost is not stored again from this disk", "fs/heal/healer.cc",
     "  if (!stored) {\n", "  if (!stored || number(segment) != 0) {\n", "volume_sim_test"),
    ("p14-repair-unverified", "a repair does not look at the shard that it has stored", "zstor/object_repair.cc",
     "  if (!judge_shard(core_, *codec_, target, *stored, work.stripe, shard.index, mode_)) return false;\n", "",
     "zstor_store_test volume_sim_test"),
    ("p14-repair-uproots", "a repair deletes what it would put back before it has what to put", "zstor/object_repair.cc",
     "  if (!rebuild(work)) return;\n",
     "  for (unsigned index = 0; index < before_.total_shards; ++index) {\n"
     "    const auto place = old_place(stripe, index);\n"
     "    if (place && index == 0) {\n"
     "      static_cast<void>(remove_shard(core_, *core_.data[*place], before_, stripe, index, false));\n"
     "    }\n"
     "  }\n"
     "  if (!rebuild(work)) return;\n",
     "volume_sim_test"),
    ("p14-scrub-skips-a-backend", "a scrub believes one backend", "fs/heal/healer_units.cc",
     "  const Trust trust = [this](const BackendId& id) {\n"
     "    return is_lost(id) ? ShardTrust::kLost : ShardTrust::kVerify;\n"
     "  };\n",
     "  const Trust trust = [this](const BackendId& id) {\n"
     "    if (!backends_.empty() && id == backends_.begin()->first) return ShardTrust::kTrust;\n"
     "    return is_lost(id) ? ShardTrust::kLost : ShardTrust::kVerify;\n"
     "  };\n",
     "volume_sim_test"),
    ("p14-repair-never-starts", "a look at the manifests queues nothing", "fs/heal/healer.cc",
     "    queue_.insert({.spare = worst.spare, .segment = id});\n",
     "    if (worst.spare > 1000) queue_.insert({.spare = worst.spare, .segment = id});\n", "fs_heal_test volume_sim_test"),
    ("p14-lost-blocks-others", "one object that cannot be helped ends the repairs", "fs/heal/healer_units.cc",
     "  if (healed && healed->is_lost && (is_pass_useful_ || !queue_.empty())) return true;\n", "",
     "fs_heal_test"),
    ("p14-meta-copies-missing", "a meta backend that was away is not filled up", "fs/heal/healer.cc",
     "  const bool wanted = known.down_seconds > 0 || (is_another && !known.instance_id.empty());\n",
     "  const bool wanted = is_another && known.instance_id.empty();\n", "fs_heal_test"),
    ("p10-generation-not-bound", "the keys of an object are those of all its generations", "zstor/shard.cc",
     "  writer.le<std::uint64_t>(generation);\n", "  writer.le<std::uint64_t>(0 * generation);\n", "zstor_codec_test"),
    ("p10-chain-unchecked", "a recovery takes manifests that do not follow each other", "fs/archive/recovery.cc",
     "    if (previous_ && manifest->previous != *previous_) {\n",
     "    if (previous_ && manifest->segment == 0) {\n", "fs_archive_test"),
    ("p10-rollback-accepted", "an older head than the one that was seen is taken", "fs/archive/ownership.cc",
     "    if (head->generation < known_generation) {\n", "    if (head->generation + 1 == 0) {\n", "fs_archive_test"),
    ("p10-receipt-unchecked", "a recovery takes an older head than its receipt's", "fs/archive/recovery.cc",
     "  if (head.generation > receipt.generation) return {};\n", "  if (head.generation != 0) return {};\n",
     "fs_archive_test"),
    ("p11-loser-archives", "who has lost the volume goes on archiving", "fs/archive/ownership.cc",
     "    if (state.epoch != 0 && head && head->epoch >= state.epoch) {\n",
     "    if (state.epoch == SIZE_MAX && head && head->epoch >= state.epoch) {\n", "fs_archive_test"),
]


def run(command, deadline, **options):
    return subprocess.run(command, shell=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=deadline, check=False, **options)


class Builder:
    """Compiles one changed source and links it before the library that has the right one."""

    def __init__(self, build, scratch, targets):
        self.build, self.scratch = build, scratch
        entries = json.loads((build / "compile_commands.json").read_text())
        self.compile = {entry["file"]: entry for entry in entries}
        done = run(f"cmake --build {build} --target {' '.join(targets)}", BUILD_DEADLINE)
        if done.returncode != 0:
            sys.exit(f"the tree does not build: {done.stdout[-3000:]}")
        self.link, self.targets = {}, list(targets)
        for test in targets:
            lines = run(f"ninja -C {build} -t commands {test}", 60).stdout.splitlines()
            self.link[test] = next(line for line in reversed(lines) if f"-o bin/{test} " in line)

    def plant(self, file, text, targets=None):
        """The error, or nothing."""
        source, planted = self.scratch / pathlib.Path(file).name, self.scratch / "planted.o"
        source.write_text(text)
        entry = self.compile[str(ROOT / file)]
        words = entry["command"].split()
        words[words.index("-c") + 1] = str(source)
        words[words.index("-o") + 1] = str(planted)
        if "-MF" in words:
            words[words.index("-MF") + 1] = str(self.scratch / "planted.d")
        done = run(" ".join(words), BUILD_DEADLINE, cwd=entry["directory"])
        for test in targets or self.targets:
            if done.returncode != 0:
                break
            line = self.link[test]
            done = run(line.replace(f"-o bin/{test} ", f"-o {self.scratch / test} {planted} "), BUILD_DEADLINE,
                       cwd=self.build)
        return None if done.returncode == 0 else done.stdout


def failing_test(directory):
    """The test that fails, or nothing."""
    for name, environment in TESTS.items():
        try:
            done = run(f"{directory / name} --gtest_brief=1 --gtest_fail_fast", TEST_DEADLINE,
                       env={**os.environ, **environment})
        except subprocess.TimeoutExpired:
            return f"{name} (hangs)"
        if done.returncode != 0:
            failed = [line.split("]", 1)[1].split("(")[0].strip().rstrip(",") for line in done.stdout.splitlines()
                      if line.startswith("[  FAILED  ]")]
            return f"{name}: {failed[0] if failed else f'exit {done.returncode}'}"
    return None


def failing_fault_test(scratch, tests):
    """The first of `tests` that fails with what is planted, or nothing: programs of unit tests, the simulation, or one
    function of backend_fault_test.py."""
    for test in tests.split():
        found = failing_binary(scratch, test) if test.endswith("_test") else failing_process_test(scratch, test)
        if found is not None:
            return found
    return None


def failing_binary(scratch, name):
    is_sim = name == "volume_sim_test"
    try:
        done = run(f"{scratch / name} --gtest_brief=1" + (" --gtest_filter='*EverySeed*'" if is_sim else ""), TEST_DEADLINE,
                   env={**os.environ, "QSFS_SIM_SEEDS": "1000"})
    except subprocess.TimeoutExpired:
        return f"{name} (hangs)"
    if done.returncode == 0:
        return None
    wanted = "Which is" if is_sim else "[  FAILED  ]"
    lines = [line.strip() for line in done.stdout.splitlines() if wanted in line] or [f"exit {done.returncode}"]
    return f"{name}: {lines[0][:160]}"


def failing_process_test(scratch, function):
    for program in ("qsfs", "qsfs-zdb"):
        if not (scratch / program).exists():
            (scratch / program).symlink_to(BUILD / "bin" / program)
    try:
        done = run(f"{sys.executable} {ROOT}/tests/integration/backend_fault_test.py {function}", TEST_DEADLINE,
                   env={**os.environ, "QSFS_BIN": str(scratch)})
    except subprocess.TimeoutExpired:
        return f"{function} (hangs)"
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    return None if done.returncode == 0 else (failed or [f"{function}: exit {done.returncode}"])[0][:160]


def try_bug(builder, bug):
    """What became of one bug, as a word and its explanation."""
    meaning, file, old, new = bug[1:5]
    text = (ROOT / file).read_text()
    for gone, instead in zip([old], [new]) if isinstance(old, str) else zip(old, new):
        if text.count(gone) != 1:
            return "LOST", f"its text is in {file} {text.count(gone)} times"
        text = text.replace(gone, instead)
    programs = None if len(bug) == 5 else [test if test.endswith("_test") else "qsfs-fs" for test in bug[5].split()]
    error = builder.plant(file, text, programs)
    if error is not None:
        return "BROKEN", f"does not build: {error[-1500:]}"
    found = failing_test(builder.scratch) if len(bug) == 5 else failing_fault_test(builder.scratch, bug[5])
    return ("MISSED", meaning) if found is None else ("found", f"by {found}")


def programs_of(bugs):
    """What is linked anew for them, and what runs beside that."""
    tests = {test for bug in bugs for test in bug[5].split()}
    programs = {test for test in tests if test.endswith("_test")}
    return sorted(programs | ({"qsfs-fs", "qsfs", "qsfs-zdb"} if programs != tests else set()))


def main():
    is_backends = sys.argv[1:2] == ["--backends"]
    wanted = sys.argv[1 + is_backends:]
    planted = [bug for bug in (BACKEND_BUGS if is_backends else BUGS) if not wanted or bug[0] in wanted]
    missed = 0
    with tempfile.TemporaryDirectory(prefix="qsfs-planted-") as scratch:
        builder = Builder(BUILD, pathlib.Path(scratch), programs_of(planted) if is_backends else TESTS)
        if not is_backends and (failed := failing_test(BUILD / "bin")) is not None:
            sys.exit(f"the tests fail without any bug: {failed}")
        for bug in planted:
            start = time.monotonic()
            word, text = try_bug(builder, bug)
            missed += word != "found"
            print(f"{word:7} {bug[0]:28} {text}  ({time.monotonic() - start:.0f} s)", flush=True)
    print(f"planted bugs found: {len(planted) - missed} of {len(planted)}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
