#include "command.hpp"

int main(int argc, char** argv) { return migrate_hostd::run(argc, argv); }
