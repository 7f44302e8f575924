#include "command.hpp"

#include <iostream>

int main(int argc, char** argv) { return migrate_store::run({argv + 1, argv + argc}, std::cout, std::cerr); }
