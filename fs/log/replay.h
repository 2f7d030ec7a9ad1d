// Start-up of the log (R6): finds where the history ends, cuts what is behind, applies what the
// store does not have yet.
//
// What ends the history:
// - the first record that is not valid at its place (torn, or never written);
// - a segment whose start part does not name the end of the one before (its tail was lost);
// - a record that is not known to be durable and names payload whose CRC fails.
//
// What is known to be durable, and therefore damage when it is missing: everything before the LSN
// of the store; before the `synced` LSN of any valid record, wherever it is found; and the whole
// journal of a segment that has stored sums (see Log::drain).
#pragma once

#include <string>

#include "base/disk.h"
#include "base/result.h"
#include "fs/log/log.h"
#include "fs/log/segment_files.h"

namespace qsfs::fs {

struct ReplayOutcome {
  ReplayReport report;
  // There is no history in this directory: the log begins with LogOptions::first_segment.
  bool is_empty = false;
  // The segment in which the history ends, and what its seal has to say.
  SealedSegment last;
  // Nothing but book-keeping is in it: the log goes on in it, so that restarts of an idle volume
  // add nothing.
  bool reuse_last = false;
};

// Errors as of Log::open. With report.damage, nothing on the disk was changed.
Result<ReplayOutcome> replay_journals(const LogOptions& options, Disk& disk, SegmentFiles& files,
                                      Lsn applied, const Log::ApplyFn& apply);

}  // namespace qsfs::fs
