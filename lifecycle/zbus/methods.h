// The methods of zbus object manager@0.0.1.
#pragma once

#include <optional>
#include <string_view>

#include "base/clock.h"
#include "lifecycle/manager.h"
#include "lifecycle/zbus/messages.h"

namespace qsfs::lifecycle {

// Does what the request asks for, and says how it went.
ZbusResponse call_method(Manager& manager, const ZbusRequest& request);

// For a request that waited for longer than its caller does: nothing is done.
ZbusResponse refuse_old(const ZbusRequest& request, Duration age, Duration deadline);

// How long the caller of a method waits.
Duration deadline_of(std::string_view method);

}  // namespace qsfs::lifecycle
