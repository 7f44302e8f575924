// pmake: a parallel make. What it consists of is in run.cpp.
#include "recipe.hpp"

int main(int argc, char** argv) { return pmake::run(argc, argv); }
