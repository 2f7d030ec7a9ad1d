#include "fs/volume/posix_acl.h"

#include <algorithm>

namespace qsfs::fs {
namespace {

constexpr std::uint32_t kXattrVersion = 2;
constexpr std::size_t kHeaderLen = 4;
constexpr std::size_t kEntryLen = 8;
constexpr std::uint32_t kPermissions = 0777;

constexpr std::uint16_t low3(std::uint32_t bits) { return static_cast<std::uint16_t>(bits & 7); }

}  // namespace

PosixAcl::Entry* PosixAcl::find(Tag tag) {
  const auto at = std::ranges::find(entries, tag, &Entry::tag);
  return at == entries.end() ? nullptr : &*at;
}

PosixAcl::Entry* PosixAcl::group_class() {
  Entry* mask = find(kMask);
  return mask != nullptr ? mask : find(kGroupObj);
}

Result<PosixAcl> PosixAcl::parse(Bytes encoded) {
  ByteReader in(encoded);
  if (in.le<std::uint32_t>() != kXattrVersion || in.failed() || in.remaining() % kEntryLen != 0) {
    return fail(Errc::kInvalidArgument, "access control list: not of version 2");
  }
  PosixAcl acl;
  acl.entries.reserve(in.remaining() / kEntryLen);
  while (in.remaining() > 0) {
    Entry entry;
    entry.tag = in.le<std::uint16_t>();
    entry.permissions = in.le<std::uint16_t>();
    entry.id = in.le<std::uint32_t>();
    const bool known = entry.tag == kUserObj || entry.tag == kUser || entry.tag == kGroupObj ||
                       entry.tag == kGroup || entry.tag == kMask || entry.tag == kOther;
    if (!known || entry.permissions > 7) {
      return fail(Errc::kInvalidArgument, "access control list: unknown tag or permission");
    }
    acl.entries.push_back(entry);
  }
  const auto one = [&acl](Tag tag) { return std::ranges::count(acl.entries, tag, &Entry::tag); };
  if (!acl.entries.empty() &&
      (one(kUserObj) != 1 || one(kGroupObj) != 1 || one(kOther) != 1 || one(kMask) > 1)) {
    return fail(Errc::kInvalidArgument, "access control list: needs one owner, group and other");
  }
  return acl;
}

Buffer PosixAcl::encode() const {
  Buffer out;
  out.reserve(kHeaderLen + entries.size() * kEntryLen);
  ByteWriter writer(out);
  writer.le(kXattrVersion);
  for (const Entry& entry : entries) {
    writer.le(entry.tag);
    writer.le(entry.permissions);
    writer.le(entry.id);
  }
  return out;
}

bool PosixAcl::is_minimal() const {
  return std::ranges::all_of(entries, [](const Entry& entry) {
    return entry.tag == kUserObj || entry.tag == kGroupObj || entry.tag == kOther;
  });
}

std::uint32_t PosixAcl::mode_from(std::uint32_t mode) const {
  std::uint32_t bits = 0;
  PosixAcl copy = *this;
  if (const Entry* user = copy.find(kUserObj)) bits |= std::uint32_t{user->permissions} << 6;
  if (const Entry* group = copy.group_class()) bits |= std::uint32_t{group->permissions} << 3;
  if (const Entry* other = copy.find(kOther)) bits |= other->permissions;
  return (mode & ~kPermissions) | bits;
}

void PosixAcl::set_mode(std::uint32_t mode) {
  if (Entry* user = find(kUserObj)) user->permissions = low3(mode >> 6);
  if (Entry* group = group_class()) group->permissions = low3(mode >> 3);
  if (Entry* other = find(kOther)) other->permissions = low3(mode);
}

std::uint32_t PosixAcl::inherit(std::uint32_t mode) {
  std::uint32_t bits = 0;
  const auto meet = [&bits, mode](Entry* entry, unsigned shift) {
    if (entry == nullptr) return;
    entry->permissions = static_cast<std::uint16_t>(entry->permissions & low3(mode >> shift));
    bits |= std::uint32_t{entry->permissions} << shift;
  };
  meet(find(kUserObj), 6);
  meet(group_class(), 3);
  meet(find(kOther), 0);
  return (mode & ~kPermissions) | bits;
}

}  // namespace qsfs::fs
