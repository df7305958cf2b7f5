/* Recommends from a bundle, in C.
 *
 *     cc -std=c11 -I runtime/ffi/include examples/c/recommend.c -L FOLDER -lslmrec_ffi -o recommend
 *     ORT_DISABLE_TELEMETRY=1 LD_LIBRARY_PATH=FOLDER ./recommend student.slmrec libonnxruntime.so 50 181
 *
 * FOLDER is where `cargo build --release -p slmrec-ffi` has left the library: target/release. */

#include "slmrec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A JSON list of ids. Ids with quotes, backslashes or control characters need escaping, for which a
 * program of your own has a JSON library. */
static char *json_list(int count, char **ids) {
    size_t size = 3;
    for (int i = 0; i < count; i++) {
        if (strpbrk(ids[i], "\"\\") != NULL) {
            fprintf(stderr, "%s: this example does not escape ids\n", ids[i]);
            exit(1);
        }
        size += strlen(ids[i]) + 3;
    }
    char *list = calloc(size, 1);
    if (list == NULL) {
        exit(2);
    }
    strcat(list, "[");
    for (int i = 0; i < count; i++) {
        strcat(list, i == 0 ? "\"" : ",\"");
        strcat(list, ids[i]);
        strcat(list, "\"");
    }
    return strcat(list, "]");
}

static int failed(const char *what, SlmrecStatus status) {
    fprintf(stderr, "%s failed with status %d: %s\n", what, (int)status, slmrec_last_error());
    return 1;
}

/* The history as one question, then the same as a state that grows by its last item. */
static int recommend(const SlmrecRecommender *recommender, int count, char **ids) {
    char *history = json_list(count, ids);
    size_t size = strlen(history) + 64;
    char *question = malloc(size);
    if (question == NULL) {
        exit(2);
    }
    snprintf(question, size, "{\"history\": %s, \"k\": 3}", history);
    char *answer = NULL;
    SlmrecStatus status = slmrec_recommend(recommender, question, NULL, &answer);
    free(question);
    free(history);
    if (status != SLMREC_STATUS_OK) {
        return failed("recommend", status);
    }
    printf("%s\n", answer);
    slmrec_string_free(answer);

    char *before = json_list(count - 1, ids);
    SlmrecHistoryState *state = NULL;
    status = slmrec_history_state_new(recommender, before, &state);
    free(before);
    if (status != SLMREC_STATUS_OK) {
        return failed("history state", status);
    }
    bool known = false;
    status = slmrec_history_state_append(state, ids[count - 1], &known);
    if (status == SLMREC_STATUS_OK) {
        status = slmrec_history_state_recommend(state, "{\"k\": 3}", NULL, &answer);
    }
    if (status == SLMREC_STATUS_OK) {
        printf("%s\n", answer);
        slmrec_string_free(answer);
        status = slmrec_history_state_write(state, &answer);
    }
    slmrec_history_state_free(state);
    if (status != SLMREC_STATUS_OK) {
        return failed("history state", status);
    }
    printf("%s\n", answer);
    slmrec_string_free(answer);
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: %s BUNDLE ONNXRUNTIME ITEM...\n", argv[0]);
        return 1;
    }
    size_t size = strlen(argv[2]) + 32;
    char *options = malloc(size);
    if (options == NULL) {
        return 2;
    }
    snprintf(options, size, "{\"onnxruntime\": \"%s\"}", argv[2]);
    SlmrecRecommender *recommender = NULL;
    SlmrecStatus status = slmrec_open(argv[1], options, &recommender);
    free(options);
    if (status != SLMREC_STATUS_OK) {
        return failed("open", status);
    }
    char *info = NULL;
    status = slmrec_info(recommender, &info);
    if (status == SLMREC_STATUS_OK) {
        printf("%s\n", info);
        slmrec_string_free(info);
    }
    int code = recommend(recommender, argc - 3, argv + 3);

    /* A cancelled question, and one that is none. */
    SlmrecCancelToken *token = slmrec_cancel_token_new();
    slmrec_cancel_token_cancel(token);
    char *answer = NULL;
    status = slmrec_recommend(recommender, "{\"history\": [\"1\"]}", token, &answer);
    printf("cancelled: status %d, answer %s\n", (int)status, answer == NULL ? "null" : answer);
    slmrec_cancel_token_free(token);
    status = slmrec_recommend(recommender, "{\"histroy\": []}", NULL, &answer);
    printf("misspelt: status %d, %s\n", (int)status, slmrec_last_error());
    slmrec_close(recommender);
    return code;
}
