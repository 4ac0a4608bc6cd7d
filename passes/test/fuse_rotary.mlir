// RUN: amdnfs-opt --passes='fuse-rotary' --why %s | filecheck %s

!i = !torch.int
!parts = !torch.list<vtensor>
!x = !torch.vtensor<[1,2,4,4],f16>
!half = !torch.vtensor<[1,2,4,2],f16>
!rows = !torch.vtensor<[1,2,2,4],f16>
!column = !torch.vtensor<[1,2,4,2,1],f16>
!pair = !torch.vtensor<[1,2,4,2,2],f16>
!table = !torch.vtensor<[1,1,4,4],f16>

// CHECK-LABEL: func.func @halves
// CHECK-SAME:    ([[X:%[a-z0-9]+]]: {{.*}}, [[COS:%[a-z0-9]+]]: {{.*}}, [[SIN:%[a-z0-9]+]]: {{.*}})
// CHECK:         [[FLAG:%[a-z0-9_]+]] = torch.constant.bool false
// CHECK-NEXT:    [[Y:%[0-9]+]] = torch.operator "torch.amdnfs.rotary"([[X]], [[COS]], [[SIN]], [[FLAG]])
// CHECK-NEXT:    return [[Y]]
func.func @halves(%x: !x, %cos: !table, %sin: !table) -> !x {
  %i0 = torch.constant.int 0  %i1 = torch.constant.int 1  %i2 = torch.constant.int 2  %i3 = torch.constant.int 3
  %end = torch.constant.int 9223372036854775807
  %straight = torch.aten.mul.Tensor %x, %cos : !x, !table -> !x
  %first = torch.aten.slice.Tensor %x, %i3, %i0, %i2, %i1 : !x, !i, !i, !i, !i -> !half
  %second = torch.aten.slice.Tensor %x, %i3, %i2, %end, %i1 : !x, !i, !i, !i, !i -> !half
  %minus = torch.aten.neg %second : !half -> !half
  %parts = torch.prim.ListConstruct %minus, %first : (!half, !half) -> !parts
  %turned = torch.aten.cat %parts, %i3 : !parts, !i -> !x
  %across = torch.aten.mul.Tensor %turned, %sin : !x, !table -> !x
  %y = torch.aten.add.Tensor %straight, %across, %i1 : !x, !x, !i -> !x
  return %y : !x
}

// Elements in pairs, put together by a stack or by a cat; factors and summands in the other order.
// CHECK-LABEL:   func.func @interleaved
// CHECK-SAME:      ([[X:%[a-z0-9]+]]: {{.*}}, [[COS:%[a-z0-9]+]]: {{.*}}, [[SIN:%[a-z0-9]+]]: {{.*}})
// CHECK:           [[FLAG:%[a-z0-9_]+]] = torch.constant.bool true
// CHECK-NEXT:      torch.operator "torch.amdnfs.rotary"([[X]], [[COS]], [[SIN]], [[FLAG]])
// CHECK:           [[FLAG:%[a-z0-9_]+]] = torch.constant.bool true
// CHECK-NEXT:      torch.operator "torch.amdnfs.rotary"([[X]], [[COS]], [[SIN]], [[FLAG]])
func.func @interleaved(%x: !x, %cos: !table, %sin: !table) -> (!x, !x) {
  %i0 = torch.constant.int 0  %i1 = torch.constant.int 1  %i2 = torch.constant.int 2  %i3 = torch.constant.int 3
  %i4 = torch.constant.int 4  %last = torch.constant.int -1  %end = torch.constant.int 9223372036854775807
  %even = torch.aten.slice.Tensor %x, %last, %i0, %end, %i2 : !x, !i, !i, !i, !i -> !half
  %odd = torch.aten.slice.Tensor %x, %last, %i1, %end, %i2 : !x, !i, !i, !i, !i -> !half
  %minus = torch.aten.neg %odd : !half -> !half
  %straight = torch.aten.mul.Tensor %cos, %x : !table, !x -> !x

  %parts = torch.prim.ListConstruct %minus, %even : (!half, !half) -> !parts
  %pairs = torch.aten.stack %parts, %last : !parts, !i -> !pair
  %turned = torch.aten.flatten.using_ints %pairs, %i3, %last : !pair, !i, !i -> !x
  %across = torch.aten.mul.Tensor %sin, %turned : !table, !x -> !x
  %stacked = torch.aten.add.Tensor %across, %straight, %i1 : !x, !x, !i -> !x

  %minus_column = torch.aten.unsqueeze %minus, %last : !half, !i -> !column
  %even_column = torch.aten.unsqueeze %even, %last : !half, !i -> !column
  %columns = torch.prim.ListConstruct %minus_column, %even_column : (!column, !column) -> !parts
  %joined = torch.aten.cat %columns, %i4 : !parts, !i -> !pair
  %sizes = torch.prim.ListConstruct %i1, %i2, %i4, %i4 : (!i, !i, !i, !i) -> !torch.list<int>
  %viewed = torch.aten.view %joined, %sizes : !pair, !torch.list<int> -> !x
  %viewed_across = torch.aten.mul.Tensor %viewed, %sin : !x, !table -> !x
  %concatenated = torch.aten.add.Tensor %straight, %viewed_across, %i1 : !x, !x, !i -> !x
  return %stacked, %concatenated : !x, !x
}

// Each sum differs from @halves in one thing; nobody would call them rotary.
// CHECK-LABEL: func.func @not_halves
// CHECK-NOT:     torch.operator
// CHECK-COUNT-7: torch.aten.add.Tensor
func.func @not_halves(%x: !x, %other: !x, %cos: !table, %sin: !table) -> (!x, !x, !x, !x, !x, !x, !x) {
  %i0 = torch.constant.int 0  %i1 = torch.constant.int 1  %i2 = torch.constant.int 2  %i3 = torch.constant.int 3
  %end = torch.constant.int 9223372036854775807
  %straight = torch.aten.mul.Tensor %x, %cos : !x, !table -> !x
  %first = torch.aten.slice.Tensor %x, %i3, %i0, %i2, %i1 : !x, !i, !i, !i, !i -> !half
  %second = torch.aten.slice.Tensor %x, %i3, %i2, %end, %i1 : !x, !i, !i, !i, !i -> !half
  %minus = torch.aten.neg %second : !half -> !half

  %twice_parts = torch.prim.ListConstruct %minus, %first : (!half, !half) -> !parts
  %twice_turned = torch.aten.cat %twice_parts, %i3 : !parts, !i -> !x
  %twice_across = torch.aten.mul.Tensor %twice_turned, %sin : !x, !table -> !x
  %twice = torch.aten.add.Tensor %straight, %twice_across, %i2 : !x, !x, !i -> !x

  %not_negated_parts = torch.prim.ListConstruct %second, %first : (!half, !half) -> !parts
  %not_negated_turned = torch.aten.cat %not_negated_parts, %i3 : !parts, !i -> !x
  %not_negated_across = torch.aten.mul.Tensor %not_negated_turned, %sin : !x, !table -> !x
  %not_negated = torch.aten.add.Tensor %straight, %not_negated_across, %i1 : !x, !x, !i -> !x

  %theirs = torch.aten.slice.Tensor %other, %i3, %i0, %i2, %i1 : !x, !i, !i, !i, !i -> !half
  %two_sources_parts = torch.prim.ListConstruct %minus, %theirs : (!half, !half) -> !parts
  %two_sources_turned = torch.aten.cat %two_sources_parts, %i3 : !parts, !i -> !x
  %two_sources_across = torch.aten.mul.Tensor %two_sources_turned, %sin : !x, !table -> !x
  %two_sources = torch.aten.add.Tensor %straight, %two_sources_across, %i1 : !x, !x, !i -> !x

  %later = torch.aten.slice.Tensor %x, %i3, %i1, %i3, %i1 : !x, !i, !i, !i, !i -> !half
  %begins_later_parts = torch.prim.ListConstruct %minus, %later : (!half, !half) -> !parts
  %begins_later_turned = torch.aten.cat %begins_later_parts, %i3 : !parts, !i -> !x
  %begins_later_across = torch.aten.mul.Tensor %begins_later_turned, %sin : !x, !table -> !x
  %begins_later = torch.aten.add.Tensor %straight, %begins_later_across, %i1 : !x, !x, !i -> !x

  %middle = torch.aten.slice.Tensor %x, %i3, %i2, %i3, %i1 : !x, !i, !i, !i, !i -> !half
  %minus_middle = torch.aten.neg %middle : !half -> !half
  %ends_early_parts = torch.prim.ListConstruct %minus_middle, %first : (!half, !half) -> !parts
  %ends_early_turned = torch.aten.cat %ends_early_parts, %i3 : !parts, !i -> !x
  %ends_early_across = torch.aten.mul.Tensor %ends_early_turned, %sin : !x, !table -> !x
  %ends_early = torch.aten.add.Tensor %straight, %ends_early_across, %i1 : !x, !x, !i -> !x

  %every_other = torch.aten.slice.Tensor %x, %i3, %i0, %i2, %i2 : !x, !i, !i, !i, !i -> !half
  %strided_parts = torch.prim.ListConstruct %minus, %every_other : (!half, !half) -> !parts
  %strided_turned = torch.aten.cat %strided_parts, %i3 : !parts, !i -> !x
  %strided_across = torch.aten.mul.Tensor %strided_turned, %sin : !x, !table -> !x
  %strided = torch.aten.add.Tensor %straight, %strided_across, %i1 : !x, !x, !i -> !x

  %upper = torch.aten.slice.Tensor %x, %i2, %i0, %i2, %i1 : !x, !i, !i, !i, !i -> !rows
  %lower = torch.aten.slice.Tensor %x, %i2, %i2, %end, %i1 : !x, !i, !i, !i, !i -> !rows
  %minus_lower = torch.aten.neg %lower : !rows -> !rows
  %other_axis_parts = torch.prim.ListConstruct %minus_lower, %upper : (!rows, !rows) -> !parts
  %other_axis_turned = torch.aten.cat %other_axis_parts, %i2 : !parts, !i -> !x
  %other_axis_across = torch.aten.mul.Tensor %other_axis_turned, %sin : !x, !table -> !x
  %other_axis = torch.aten.add.Tensor %straight, %other_axis_across, %i1 : !x, !x, !i -> !x
  return %twice, %not_negated, %two_sources, %begins_later, %ends_early, %strided, %other_axis : !x, !x, !x, !x, !x, !x, !x
}

// The same for @interleaved.
// CHECK-LABEL: func.func @not_interleaved
// CHECK-NOT:     torch.operator
// CHECK-COUNT-5: torch.aten.add.Tensor
// CHECK-NOT:     // refused
func.func @not_interleaved(%x: !x, %cos: !table, %sin: !table) -> (!x, !x, !x, !x, !x) {
  %i0 = torch.constant.int 0  %i1 = torch.constant.int 1  %i2 = torch.constant.int 2  %i3 = torch.constant.int 3
  %last = torch.constant.int -1  %end = torch.constant.int 9223372036854775807
  %straight = torch.aten.mul.Tensor %x, %cos : !x, !table -> !x
  %even = torch.aten.slice.Tensor %x, %last, %i0, %end, %i2 : !x, !i, !i, !i, !i -> !half
  %odd = torch.aten.slice.Tensor %x, %last, %i1, %end, %i2 : !x, !i, !i, !i, !i -> !half
  %minus = torch.aten.neg %odd : !half -> !half

  %minus_even = torch.aten.neg %even : !half -> !half
  %swapped_parts = torch.prim.ListConstruct %minus_even, %odd : (!half, !half) -> !parts
  %swapped_pairs = torch.aten.stack %swapped_parts, %last : !parts, !i -> !pair
  %swapped_turned = torch.aten.flatten.using_ints %swapped_pairs, %i3, %last : !pair, !i, !i -> !x
  %swapped_across = torch.aten.mul.Tensor %swapped_turned, %sin : !x, !table -> !x
  %swapped = torch.aten.add.Tensor %straight, %swapped_across, %i1 : !x, !x, !i -> !x

  %first_not_negated_parts = torch.prim.ListConstruct %odd, %even : (!half, !half) -> !parts
  %first_not_negated_pairs = torch.aten.stack %first_not_negated_parts, %last : !parts, !i -> !pair
  %first_not_negated_turned = torch.aten.flatten.using_ints %first_not_negated_pairs, %i3, %last : !pair, !i, !i -> !x
  %first_not_negated_across = torch.aten.mul.Tensor %first_not_negated_turned, %sin : !x, !table -> !x
  %first_not_negated = torch.aten.add.Tensor %straight, %first_not_negated_across, %i1 : !x, !x, !i -> !x

  %first = torch.aten.slice.Tensor %x, %last, %i0, %i2, %i1 : !x, !i, !i, !i, !i -> !half
  %half_apart_parts = torch.prim.ListConstruct %minus, %first : (!half, !half) -> !parts
  %half_apart_pairs = torch.aten.stack %half_apart_parts, %last : !parts, !i -> !pair
  %half_apart_turned = torch.aten.flatten.using_ints %half_apart_pairs, %i3, %last : !pair, !i, !i -> !x
  %half_apart_across = torch.aten.mul.Tensor %half_apart_turned, %sin : !x, !table -> !x
  %half_apart = torch.aten.add.Tensor %straight, %half_apart_across, %i1 : !x, !x, !i -> !x

  %short_even = torch.aten.slice.Tensor %x, %last, %i0, %i3, %i2 : !x, !i, !i, !i, !i -> !half
  %short_parts = torch.prim.ListConstruct %minus, %short_even : (!half, !half) -> !parts
  %short_pairs = torch.aten.stack %short_parts, %last : !parts, !i -> !pair
  %short_turned = torch.aten.flatten.using_ints %short_pairs, %i3, %last : !pair, !i, !i -> !x
  %short_across = torch.aten.mul.Tensor %short_turned, %sin : !x, !table -> !x
  %short = torch.aten.add.Tensor %straight, %short_across, %i1 : !x, !x, !i -> !x

  %other_axis_parts = torch.prim.ListConstruct %minus, %even : (!half, !half) -> !parts
  %other_axis_pairs = torch.aten.stack %other_axis_parts, %i3 : !parts, !i -> !pair
  %other_axis_turned = torch.aten.flatten.using_ints %other_axis_pairs, %i3, %last : !pair, !i, !i -> !x
  %other_axis_across = torch.aten.mul.Tensor %other_axis_turned, %sin : !x, !table -> !x
  %other_axis = torch.aten.add.Tensor %straight, %other_axis_across, %i1 : !x, !x, !i -> !x
  return %swapped, %first_not_negated, %half_apart, %short, %other_axis : !x, !x, !x, !x, !x
}

// -----

!i = !torch.int
!parts = !torch.list<vtensor>
!x = !torch.vtensor<[1,4],f32>
!half = !torch.vtensor<[1,2],f32>
!row = !torch.vtensor<[4],f32>
!dynamic = !torch.vtensor<[?,4],f32>

// CHECK-LABEL: func.func @refused
// CHECK-NOT:     torch.operator
// CHECK-COUNT-3: torch.aten.add.Tensor
// CHECK:       // refused: fuse-rotary: the term without rotation does not multiply the rotated tensor
// CHECK-NEXT:  // refused: fuse-rotary: the last axis must be even, and both tables of one static type that fits
// CHECK-NEXT:  // refused: fuse-rotary: the last axis must be even, and both tables of one static type that fits
// CHECK-NOT:   // refused
func.func @refused(%x: !x, %other: !x, %cos: !x, %sin: !x, %row: !row, %rows: !dynamic) -> (!x, !x, !x) {
  %i0 = torch.constant.int 0  %i1 = torch.constant.int 1  %i2 = torch.constant.int 2
  %end = torch.constant.int 9223372036854775807
  %first = torch.aten.slice.Tensor %x, %i1, %i0, %i2, %i1 : !x, !i, !i, !i, !i -> !half
  %second = torch.aten.slice.Tensor %x, %i1, %i2, %end, %i1 : !x, !i, !i, !i, !i -> !half
  %minus = torch.aten.neg %second : !half -> !half
  %parts = torch.prim.ListConstruct %minus, %first : (!half, !half) -> !parts
  %turned = torch.aten.cat %parts, %i1 : !parts, !i -> !x
  %across = torch.aten.mul.Tensor %turned, %sin : !x, !x -> !x
  %theirs = torch.aten.mul.Tensor %other, %cos : !x, !x -> !x
  %other_straight_term = torch.aten.add.Tensor %theirs, %across, %i1 : !x, !x, !i -> !x

  %straight_row = torch.aten.mul.Tensor %x, %row : !x, !row -> !x
  %other_rank = torch.aten.add.Tensor %straight_row, %across, %i1 : !x, !x, !i -> !x

  %straight_rows = torch.aten.mul.Tensor %x, %rows : !x, !dynamic -> !x
  %dynamic_table = torch.aten.add.Tensor %straight_rows, %across, %i1 : !x, !x, !i -> !x
  return %other_straight_term, %other_rank, %dynamic_table : !x, !x, !x
}
