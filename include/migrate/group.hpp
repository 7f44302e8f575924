// Groups.
#pragma once
