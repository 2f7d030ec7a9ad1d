#include "fs/log/mutation.h"

namespace qsfs::fs {

void MutationBatch::put(Bytes key, Bytes value) {
  ByteWriter writer(encoded_);
  writer.le(static_cast<std::uint8_t>(MutationKind::kPut));
  writer.sized(key);
  writer.sized(value);
}

void MutationBatch::erase(Bytes key) {
  ByteWriter writer(encoded_);
  writer.le(static_cast<std::uint8_t>(MutationKind::kErase));
  writer.sized(key);
}

void MutationBatch::add(Bytes key, std::int64_t delta) {
  ByteWriter writer(encoded_);
  writer.le(static_cast<std::uint8_t>(MutationKind::kAdd));
  writer.sized(key);
  writer.le(static_cast<std::uint64_t>(delta));
}

Status for_each_mutation(Bytes encoded, const std::function<Status(const Mutation&)>& visit) {
  ByteReader in(encoded);
  while (in.remaining() > 0) {
    Mutation mutation;
    mutation.kind = static_cast<MutationKind>(in.le<std::uint8_t>());
    mutation.key = in.sized();
    switch (mutation.kind) {
      case MutationKind::kPut: mutation.value = in.sized(); break;
      case MutationKind::kErase: break;
      case MutationKind::kAdd:
        mutation.delta = static_cast<std::int64_t>(in.le<std::uint64_t>());
        break;
      default: return fail(Errc::kCorruption, "mutation of an unknown kind");
    }
    if (in.failed()) return fail(Errc::kCorruption, "mutation cut short");
    QSFS_TRY(visit(mutation));
  }
  return {};
}

}  // namespace qsfs::fs
