# Writes OUTPUT, a C++ source that defines nibble::build_facts (trainer/config/build_facts.h): CUDA as given, and the commit of
# the tree in SOURCE. Runs with every build and leaves the file alone while it says the same, so that a new commit
# compiles one tiny source.
set(commit unknown)
find_program(GIT git)
if(GIT AND EXISTS ${SOURCE}/.git)
  execute_process(COMMAND ${GIT} --no-optional-locks describe --always --exclude=* --abbrev=12 --dirty=+changes
                  WORKING_DIRECTORY ${SOURCE} RESULT_VARIABLE failed OUTPUT_VARIABLE described ERROR_QUIET
                  OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(NOT failed)
    set(commit ${described})
  endif()
endif()
file(CONFIGURE OUTPUT ${OUTPUT} @ONLY CONTENT [[
#include "trainer/config/build_facts.h"

const nibble::BuildFacts nibble::build_facts{.commit = "@commit@", .cuda = "@CUDA@"};
]])
