#include "fs/log/mutation.h"

namespace qsfs::fs {
namespace {

void begin(ByteWriter& out, MutationKind kind, Bytes key) {
  out.le(static_cast<std::uint8_t>(kind));
  out.sized(key);
}

}  // namespace

void MutationBatch::put(Bytes key, Bytes value) {
  ByteWriter out(encoded_);
  begin(out, MutationKind::kPut, key);
  out.sized(value);
}

void MutationBatch::erase(Bytes key) {
  ByteWriter out(encoded_);
  begin(out, MutationKind::kErase, key);
}

void MutationBatch::add(Bytes key, std::int64_t delta) {
  ByteWriter out(encoded_);
  begin(out, MutationKind::kAdd, key);
  out.le(static_cast<std::uint64_t>(delta));
}

Status for_each_mutation(Bytes encoded, const std::function<Status(const Mutation&)>& visit) {
  ByteReader in(encoded);
  while (in.remaining() > 0) {
    Mutation mutation;
    const auto kind = in.le<std::uint8_t>();
    mutation.kind = static_cast<MutationKind>(kind);
    mutation.key = in.sized();
    switch (mutation.kind) {
      case MutationKind::kPut:
        mutation.value = in.sized();
        break;
      case MutationKind::kErase:
        break;
      case MutationKind::kAdd:
        mutation.delta = static_cast<std::int64_t>(in.le<std::uint64_t>());
        break;
      default:
        return fail(Errc::kCorruption, "mutation of unknown kind " + std::to_string(kind));
    }
    if (in.failed()) return fail(Errc::kCorruption, "mutation ends before its length");
    QSFS_TRY(visit(mutation));
  }
  return {};
}

}  // namespace qsfs::fs
