// TLS over a socket that is connected already.
#pragma once

#include <utility>

#include <kj/async-io.h>

#include <migrate/rpc/credentials.hpp>
#include <migrate/rpc/event_loop.hpp>
#include <migrate/rpc/socket_stream.hpp>

namespace migrate::detail {

template <class Done, class Failed>
kj::Promise<void> secure(event_loop& loop, tls& with, int socket, bool client, Done done, Failed failed) {
  return with.wrap(kj::heap<socket_stream>(loop, socket), client)
      .then(
          [&loop, done](tls::secured&& made) {
            loop.post([done, secured = kj::mv(made)]() mutable { done(kj::mv(secured)); });
          },
          [&loop, failed](kj::Exception&& exception) {
            loop.post([failed, exception = kj::mv(exception)] { failed(exception); });
          })
      .eagerlyEvaluate(nullptr);
}
// Takes over the socket. One of done(tls::secured&&) and failed(const kj::Exception&) is called, in a job of its own, since
// a promise must not be destroyed by its own continuation; it may come after the promise was dropped.

} // namespace migrate::detail
