// How a failed assertion of ggml becomes an exception: see trampoline.cpp.
#pragma once

// Whether somebody up the stack of this thread catches exceptions, and whether an assertion has failed since.
extern thread_local bool catching;
extern thread_local bool failed;
