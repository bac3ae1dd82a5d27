// A session in one run of bytes (docs/SNAPSHOTS.md): all that it keeps of its conversation, in a layout that knows no machine,
// context, chunk or instruction set. It comes from outside: nothing of a session changes before all of it has been checked.
#pragma once

#include "session/session.h"

namespace acorn {

/// Bytes that SaveSession writes now.
uint64_t SnapshotBytes(const Session &session);

/// Writes SnapshotBytes bytes, which depend on the conversation alone: equal ones on every machine. `out` may have any address.
/// Returns: kOk | kBuffer (nothing written)
Status SaveSession(const Session &session, Span<uint8_t> out);

/// The session then has the conversation, rate and logits of the snapshot, and all else as after ResetSession. Any failure leaves
/// it as it was. `snapshot` may have any address.
/// Returns: kOk | kForeign | kVersion | kTruncated | kDamaged | kInvalid | kOtherModel | kContextFull (more tokens than fit)
Status LoadSession(Session *session, Span<const uint8_t> snapshot);

}  // namespace acorn
