// read() and read_stripe(): from shards to plain bytes.
#pragma once

#include "zstor/object_store.h"
#include "zstor/store_core.h"

namespace qsfs::zstor {

Status read_object_stripe(StoreCore& core, const Manifest& manifest, std::uint32_t stripe,
                          MutableBytes out, const ReadOptions& options);
Status read_object(StoreCore& core, const Manifest& manifest, std::uint64_t offset,
                   MutableBytes out, const ReadOptions& options);

}  // namespace qsfs::zstor
