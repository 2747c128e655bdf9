// The headers that tests/CMakeLists.txt compiles once for all test programs.
