#include "SLMRecLink.h"

/* As runtime/ffi/include/slmrec.h and onnxruntime_c_api.h have them; both are linked in. */
#ifndef SLMREC_H
int32_t slmrec_use_linked_onnxruntime(const void *(*get_api_base)(void));
#endif
const void *OrtGetApiBase(void);

int32_t slmrec_link_onnxruntime(void) { return slmrec_use_linked_onnxruntime(OrtGetApiBase); }
