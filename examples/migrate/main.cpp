#include "command.hpp"

int main(int argc, char** argv) { return migrate_command::run(argc, argv); }
