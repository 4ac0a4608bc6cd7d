"""The MLIR text that `lower-attention` fills in: attention over keys and values that are plain tensors.

Letters: B requests, K key/value heads, G query heads that share one, H = K * G, T queries, S keys, D dim of a key,
V dim of a value, E storage type. B, T and S may be dynamic (`?`); all is one contraction, a softmax, one contraction.
"""

from __future__ import annotations

FUNCTION = """
#scores = affine_map<(b, k, g, t, s) -> (b, k, g, t, s)>
#rows = affine_map<(b, k, g, t, s) -> (b, k, g, t)>
func.func private @"{name}"(%query: tensor<{B}x{H}x{T}x{D}x{E}>, %key: tensor<{B}x{K}x{S}x{D}x{E}>,
    %value: tensor<{B}x{K}x{S}x{V}x{E}>{arguments}) -> tensor<{B}x{T}x{H}x{V}x{E}> {{
  %c0 = arith.constant 0 : index
  %c2 = arith.constant 2 : index
  %zero = arith.constant 0.0 : f32
  %one = arith.constant 1.0 : f32
  %lowest = arith.constant 0xFF7FFFFF : f32
  %b = tensor.dim %query, %c0 : tensor<{B}x{H}x{T}x{D}x{E}>
  %t = tensor.dim %query, %c2 : tensor<{B}x{H}x{T}x{D}x{E}>
  %s = tensor.dim %key, %c2 : tensor<{B}x{K}x{S}x{D}x{E}>
  %rows_empty = tensor.empty({bt}) : tensor<{B}x{K}x{G}x{T}xf32>
  %scores_empty = tensor.empty({bts}) : tensor<{B}x{K}x{G}x{T}x{S}xf32>
  %weights_empty = tensor.empty({bts}) : tensor<{B}x{K}x{G}x{T}x{S}x{E}>

  %q = tensor.expand_shape %query [[0], [1, 2], [3], [4]] output_shape [{b}, {K}, {G}, {t}, {D}]
      : tensor<{B}x{H}x{T}x{D}x{E}> into tensor<{B}x{K}x{G}x{T}x{D}x{E}>
  %scores_init = linalg.fill ins(%zero : f32) outs(%scores_empty : tensor<{B}x{K}x{G}x{T}x{S}xf32>)
      -> tensor<{B}x{K}x{G}x{T}x{S}xf32>
  %products = linalg.generic {{indexing_maps = [affine_map<(b, k, g, t, s, d) -> (b, k, g, t, d)>,
      affine_map<(b, k, g, t, s, d) -> (b, k, s, d)>, affine_map<(b, k, g, t, s, d) -> (b, k, g, t, s)>],
      iterator_types = ["parallel", "parallel", "parallel", "parallel", "parallel", "reduction"]}}
      ins(%q, %key : tensor<{B}x{K}x{G}x{T}x{D}x{E}>, tensor<{B}x{K}x{S}x{D}x{E}>)
      outs(%scores_init : tensor<{B}x{K}x{G}x{T}x{S}xf32>) {{
  ^bb0(%x: {E}, %y: {E}, %o: f32):
{widen_products}
    %p = arith.mulf {x}, {y} : f32
    %r = arith.addf %o, %p : f32
    linalg.yield %r : f32
  }} -> tensor<{B}x{K}x{G}x{T}x{S}xf32>
  %scores = linalg.generic {{indexing_maps = [#scores, #scores],
      iterator_types = ["parallel", "parallel", "parallel", "parallel", "parallel"]}}
      ins(%products : tensor<{B}x{K}x{G}x{T}x{S}xf32>) outs(%scores_empty : tensor<{B}x{K}x{G}x{T}x{S}xf32>) {{
  ^bb0(%p: f32, %o: f32):
    %scale = arith.constant {scale} : f32
    %x = arith.mulf %p, %scale : f32
{cap}
    %ib = linalg.index 0 : index
    %ik = linalg.index 1 : index
    %ig = linalg.index 2 : index
    %it = linalg.index 3 : index
    %is = linalg.index 4 : index
    %group = arith.constant {G} : index
    %base = arith.muli %ik, %group : index
    %ih = arith.addi %base, %ig : index
{bias}
{slopes}
{mask}
{causal}
    linalg.yield {score} : f32
  }} -> tensor<{B}x{K}x{G}x{T}x{S}xf32>

  %max_init = linalg.fill ins(%lowest : f32) outs(%rows_empty : tensor<{B}x{K}x{G}x{T}xf32>)
      -> tensor<{B}x{K}x{G}x{T}xf32>
  %max = linalg.generic {{indexing_maps = [#scores, #rows],
      iterator_types = ["parallel", "parallel", "parallel", "parallel", "reduction"]}}
      ins(%scores : tensor<{B}x{K}x{G}x{T}x{S}xf32>) outs(%max_init : tensor<{B}x{K}x{G}x{T}xf32>) {{
  ^bb0(%x: f32, %o: f32):
    %r = arith.maximumf %x, %o : f32
    linalg.yield %r : f32
  }} -> tensor<{B}x{K}x{G}x{T}xf32>
{barrier}
  %sum_init = linalg.fill ins(%zero : f32) outs(%rows_empty : tensor<{B}x{K}x{G}x{T}xf32>)
      -> tensor<{B}x{K}x{G}x{T}xf32>
  %sum = linalg.generic {{indexing_maps = [#scores, #rows, #rows],
      iterator_types = ["parallel", "parallel", "parallel", "parallel", "reduction"]}}
      ins(%scores, {max} : tensor<{B}x{K}x{G}x{T}x{S}xf32>, tensor<{B}x{K}x{G}x{T}xf32>)
      outs(%sum_init : tensor<{B}x{K}x{G}x{T}xf32>) {{
  ^bb0(%x: f32, %top: f32, %o: f32):
    %y = arith.subf %x, %top : f32
    %e = math.exp %y : f32
    %r = arith.addf %e, %o : f32
    linalg.yield %r : f32
  }} -> tensor<{B}x{K}x{G}x{T}xf32>
  %weights = linalg.generic {{indexing_maps = [#scores, #rows, #scores],
      iterator_types = ["parallel", "parallel", "parallel", "parallel", "parallel"]}}
      ins(%scores, {max} : tensor<{B}x{K}x{G}x{T}x{S}xf32>, tensor<{B}x{K}x{G}x{T}xf32>)
      outs(%weights_empty : tensor<{B}x{K}x{G}x{T}x{S}x{E}>) {{
  ^bb0(%x: f32, %top: f32, %o: {E}):
    %y = arith.subf %x, %top : f32
    %e = math.exp %y : f32
{round_op}
    linalg.yield {round} : {E}
  }} -> tensor<{B}x{K}x{G}x{T}x{S}x{E}>

  %mixed_empty = tensor.empty({bt}) : tensor<{B}x{K}x{G}x{T}x{V}xf32>
  %mixed_init = linalg.fill ins(%zero : f32) outs(%mixed_empty : tensor<{B}x{K}x{G}x{T}x{V}xf32>)
      -> tensor<{B}x{K}x{G}x{T}x{V}xf32>
  %mixed = linalg.generic {{indexing_maps = [affine_map<(b, k, g, t, v, s) -> (b, k, g, t, s)>,
      affine_map<(b, k, g, t, v, s) -> (b, k, s, v)>, affine_map<(b, k, g, t, v, s) -> (b, k, g, t, v)>],
      iterator_types = ["parallel", "parallel", "parallel", "parallel", "parallel", "reduction"]}}
      ins(%weights, %value : tensor<{B}x{K}x{G}x{T}x{S}x{E}>, tensor<{B}x{K}x{S}x{V}x{E}>)
      outs(%mixed_init : tensor<{B}x{K}x{G}x{T}x{V}xf32>) {{
  ^bb0(%x: {E}, %y: {E}, %o: f32):
{widen_products}
    %p = arith.mulf {x}, {y} : f32
    %r = arith.addf %o, %p : f32
    linalg.yield %r : f32
  }} -> tensor<{B}x{K}x{G}x{T}x{V}xf32>
  %result_empty = tensor.empty({bt}) : tensor<{B}x{T}x{K}x{G}x{V}x{E}>
  %result5 = linalg.generic {{indexing_maps = [affine_map<(b, t, k, g, v) -> (b, k, g, t, v)>,
      affine_map<(b, t, k, g, v) -> (b, k, g, t)>, affine_map<(b, t, k, g, v) -> (b, t, k, g, v)>],
      iterator_types = ["parallel", "parallel", "parallel", "parallel", "parallel"]}}
      ins(%mixed, %sum : tensor<{B}x{K}x{G}x{T}x{V}xf32>, tensor<{B}x{K}x{G}x{T}xf32>)
      outs(%result_empty : tensor<{B}x{T}x{K}x{G}x{V}x{E}>) {{
  ^bb0(%x: f32, %total: f32, %o: {E}):
    %e = arith.divf %x, %total : f32
{round_op}
    linalg.yield {round} : {E}
  }} -> tensor<{B}x{T}x{K}x{G}x{V}x{E}>
  %result = tensor.collapse_shape %result5 [[0], [1], [2, 3], [4]]
      : tensor<{B}x{T}x{K}x{G}x{V}x{E}> into tensor<{B}x{T}x{H}x{V}x{E}>
  return %result : tensor<{B}x{T}x{H}x{V}x{E}>
}}
"""

WIDEN_PRODUCTS = """    %xw = arith.extf %x : {E} to f32
    %yw = arith.extf %y : {E} to f32"""

CAP = """    %cap = arith.constant {cap} : f32
    %ratio = arith.divf %x, %cap : f32
    %bent = math.tanh %ratio : f32
    %capped = arith.mulf %bent, %cap : f32"""

BARRIER = "  %max_stored = util.optimization_barrier %max : tensor<{B}x{K}x{G}x{T}xf32>"

BIAS = """    %added = tensor.extract %bias[{at}] : {type}
    %biased = arith.addf {score}, %added : f32"""

SLOPES = """    %slope = tensor.extract %slopes[%ih] : tensor<{H}xf32>
    %it32 = arith.index_cast %it : index to i32
    %is32 = arith.index_cast %is : index to i32
    %distance = arith.subi %it32, %is32 : i32
    %away = arith.sitofp %distance : i32 to f32
    %drop = arith.mulf %slope, %away : f32
    %sloped = arith.subf {score}, %drop : f32"""

MASK = """    %is_seen = tensor.extract %mask[{at}] : {type}
    %masked = arith.select %is_seen, {score}, %lowest : f32"""

CAUSAL = """    %is_past = arith.cmpi ule, %is, %it : index
    %past = arith.select %is_past, {score}, %lowest : f32"""
