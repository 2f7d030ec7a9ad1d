#include "fs/log/redo.h"

#include <utility>

#include "fs/log/journal_format.h"

namespace qsfs::fs {

void UnsyncedPayload::add(const PayloadRef& ref, Bytes payload) {
  const MutexLock lock(mu_);
  if (is_too_much_) return;
  if (copy_.refs.size() == kPiecesMax || payload.size() > bytes_max_ - copy_.bytes.size()) {
    is_too_much_ = true;
    copy_.refs.clear();
    copy_.bytes.clear();
    return;
  }
  copy_.refs.push_back(ref);
  copy_.bytes.insert(copy_.bytes.end(), payload.begin(), payload.end());
}

bool UnsyncedPayload::take(std::uint64_t room, RedoCopy& out) {
  const MutexLock lock(mu_);
  if (is_too_much_ || journal::redo_len(copy_) > room) return false;
  out = std::exchange(copy_, RedoCopy{});
  return true;
}

void UnsyncedPayload::clear() {
  const MutexLock lock(mu_);
  copy_.refs.clear();
  copy_.bytes.clear();
  is_too_much_ = false;
}

}  // namespace qsfs::fs
