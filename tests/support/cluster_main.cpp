#include "cluster_main.hpp"
