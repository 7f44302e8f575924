// Channels: authenticated links between programs that need not be the same executable. All of it.
#pragma once

#include <migrate/rpc/channel_client.hpp>
#include <migrate/rpc/channel_link.hpp>
#include <migrate/rpc/channel_server.hpp>
#include <migrate/rpc/control_socket.hpp>
