import { Hot, hotOps } from "./hot.ts";
import { OpcodeTable } from "./opcode_table.ts";
import { aesOps } from "./ops_aes.ts";
import { avxOps } from "./ops_avx.ts";
import { avxMemoryOps } from "./ops_avx_memory.ts";
import { avxPermuteOps } from "./ops_avx_permute.ts";
import { bcdOps } from "./ops_bcd.ts";
import { bitOps } from "./ops_bit.ts";
import { bmiOps } from "./ops_bmi.ts";
import { exchangeOps } from "./ops_exchange.ts";
import { fmaOps } from "./ops_fma.ts";
import { ioOps } from "./ops_io.ts";
import { miscOps } from "./ops_misc.ts";
import { mulDivOps } from "./ops_muldiv.ts";
import { checkedBranch, invalid, nearOps } from "./ops_near.ts";
import { segmentOps } from "./ops_segment.ts";
import { shaOps } from "./ops_sha.ts";
import { shiftOps } from "./ops_shift.ts";
import { simdApproximateOps } from "./ops_simd_approximate.ts";
import { simdCompareOps } from "./ops_simd_compare.ts";
import { simdConvertOps } from "./ops_simd_convert.ts";
import { simdFloatOps } from "./ops_simd_float.ts";
import { simdIntOps } from "./ops_simd_int.ts";
import { simdMoveOps } from "./ops_simd_move.ts";
import { simdRoundOps } from "./ops_simd_round.ts";
import { simdShiftOps } from "./ops_simd_shift.ts";
import { simdShuffleOps } from "./ops_simd_shuffle.ts";
import { simdStringOps } from "./ops_simd_string.ts";
import { stringOps } from "./ops_string.ts";
import { systemOps } from "./ops_system.ts";
import { x87ArithmeticOps } from "./ops_x87_arithmetic.ts";
import { x87ControlOps } from "./ops_x87_control.ts";
import { x87MoveOps } from "./ops_x87_move.ts";
import { xsaveOps } from "./ops_xsave.ts";
import { unavailable } from "./simd.ts";

let table: OpcodeTable | undefined;

/** The opcode tables of all families, built at first use and then shared. */
export function opcodeTable(): OpcodeTable {
  if (table === undefined) {
    table = new OpcodeTable(Hot.COUNT, [
      hotOps(),
      nearOps,
      aesOps(),
      avxOps(),
      avxMemoryOps(),
      avxPermuteOps(),
      bcdOps,
      bitOps,
      bmiOps,
      exchangeOps,
      fmaOps(),
      ioOps,
      miscOps,
      mulDivOps,
      segmentOps,
      shaOps,
      shiftOps,
      simdApproximateOps,
      simdCompareOps,
      simdConvertOps,
      simdFloatOps,
      simdIntOps,
      simdMoveOps,
      simdRoundOps,
      simdShiftOps,
      simdShuffleOps,
      simdStringOps,
      stringOps,
      systemOps,
      x87ArithmeticOps,
      x87ControlOps,
      x87MoveOps,
      xsaveOps,
    ]);
    // The decoder substitutes these; no opcode names them.
    table.number(checkedBranch);
    table.number(invalid);
    table.number(unavailable);
  }
  return table;
}
