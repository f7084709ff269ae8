// Batch normalization by oneDNN's C++ API, as functions of C: what bench/libraries/onednn.py compiles and calls.

#include <cstdint>
#include <omp.h>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>

using namespace dnnl;

struct Arrays {
    void *x, *dy, *gamma, *beta, *mean, *var, *y, *dx, *dgamma, *dbeta;
};

struct Call {
    primitive operation;
    stream queue;
    std::unordered_map<int, memory> arguments;
};

static engine &cpu() {
    static engine only(engine::kind::cpu, 0);
    return only;
}

extern "C" void use_threads(int threads) { omp_set_num_threads(threads); }

static memory::desc images(int64_t outer, int64_t channels, int64_t inner, bool last) {
    auto tag = last ? memory::format_tag::nhwc : memory::format_tag::nchw;
    return memory::desc({outer, channels, 1, inner}, memory::data_type::f32, tag);
}

static memory of_channels(int64_t channels, void *at) {
    return memory(memory::desc({channels}, memory::data_type::f32, memory::format_tag::a), cpu(), at);
}

static normalization_flags flags_of(bool training) {
    auto flags = normalization_flags::use_scale | normalization_flags::use_shift;
    return training ? flags : flags | normalization_flags::use_global_stats;
}

// Each makes a call on data of (outer, channels, inner), or of (outer, inner, channels) if the channels are last.
extern "C" void *make_forward(const Arrays *a, int64_t outer, int64_t channels, int64_t inner, bool last, bool training,
                              float epsilon) {
    auto data = images(outer, channels, inner, last);
    auto kind = training ? prop_kind::forward_training : prop_kind::forward_inference;
    batch_normalization_forward::primitive_desc described(cpu(), kind, data, data, epsilon, flags_of(training));
    return new Call{batch_normalization_forward(described),
                    stream(cpu()),
                    {{DNNL_ARG_SRC, memory(data, cpu(), a->x)},
                     {DNNL_ARG_DST, memory(data, cpu(), a->y)},
                     {DNNL_ARG_MEAN, of_channels(channels, a->mean)},
                     {DNNL_ARG_VARIANCE, of_channels(channels, a->var)},
                     {DNNL_ARG_SCALE, of_channels(channels, a->gamma)},
                     {DNNL_ARG_SHIFT, of_channels(channels, a->beta)}}};
}

extern "C" void *make_backward(const Arrays *a, int64_t outer, int64_t channels, int64_t inner, bool last,
                               bool training, float epsilon) {
    auto data = images(outer, channels, inner, last);
    auto flags = flags_of(training);
    batch_normalization_forward::primitive_desc forward(cpu(), prop_kind::forward_training, data, data, epsilon, flags);
    batch_normalization_backward::primitive_desc described(cpu(), prop_kind::backward, data, data, data, epsilon, flags,
                                                           forward);
    return new Call{batch_normalization_backward(described),
                    stream(cpu()),
                    {{DNNL_ARG_SRC, memory(data, cpu(), a->x)},
                     {DNNL_ARG_DIFF_DST, memory(data, cpu(), a->dy)},
                     {DNNL_ARG_MEAN, of_channels(channels, a->mean)},
                     {DNNL_ARG_VARIANCE, of_channels(channels, a->var)},
                     {DNNL_ARG_SCALE, of_channels(channels, a->gamma)},
                     {DNNL_ARG_DIFF_SRC, memory(data, cpu(), a->dx)},
                     {DNNL_ARG_DIFF_SCALE, of_channels(channels, a->dgamma)},
                     {DNNL_ARG_DIFF_SHIFT, of_channels(channels, a->dbeta)}}};
}

extern "C" void run(Call *call) {
    call->operation.execute(call->queue, call->arguments);
    call->queue.wait();
}

extern "C" void forget(Call *call) { delete call; }
