/* On Apple systems ONNX Runtime is linked into the app. */

#ifndef SLMREC_LINK_H
#define SLMREC_LINK_H

#include <stdint.h>

/* Hands the linked ONNX Runtime over; the status of slmrec.h, 0 for success. */
int32_t slmrec_link_onnxruntime(void);

#endif
