package script

// checkLockTime runs OP_CHECKLOCKTIMEVERIFY: the transaction must be locked at least until the
// number on the stack, which stays there (BIP 65).
func (v *Verifier) checkLockTime() Code {
	if v.flags&VerifyCheckLockTimeVerify == 0 {
		return OK // still OP_NOP2
	}
	want, code := v.lockArgument()
	if code != OK {
		return code
	}
	if v.spend == nil {
		return ErrUnsatisfiedLockTime
	}
	have := int64(v.spend.tx.LockTime)
	if (have < LockTimeThreshold) != (want < LockTimeThreshold) || want > have {
		return ErrUnsatisfiedLockTime
	}
	// A final input would let the transaction ignore its lock time.
	if v.spend.tx.In[v.index].Sequence == sequenceFinal {
		return ErrUnsatisfiedLockTime
	}
	return OK
}

// checkSequence runs OP_CHECKSEQUENCEVERIFY: the output must have at least the age on the stack, by
// the relative lock time of the input (BIP 112).
func (v *Verifier) checkSequence() Code {
	if v.flags&VerifyCheckSequenceVerify == 0 {
		return OK // still OP_NOP3
	}
	want, code := v.lockArgument()
	if code != OK {
		return code
	}
	if want&sequenceDisable != 0 {
		return OK
	}
	if v.spend == nil {
		return ErrUnsatisfiedLockTime
	}
	have := v.spend.tx.In[v.index].Sequence
	if v.spend.tx.Version < 2 || have&sequenceDisable != 0 {
		return ErrUnsatisfiedLockTime
	}
	const mask = sequenceTypeFlag | sequenceMask
	masked, asked := int64(have&mask), want&mask
	if (masked < sequenceTypeFlag) != (asked < sequenceTypeFlag) || asked > masked {
		return ErrUnsatisfiedLockTime
	}
	return OK
}

func (v *Verifier) lockArgument() (int64, Code) {
	if len(v.stack) < 1 {
		return 0, ErrInvalidStackOperation
	}
	n, ok := v.num(1, lockTimeSize)
	switch {
	case !ok:
		return 0, ErrUnknownError
	case n < 0:
		return 0, ErrNegativeLockTime
	}
	return n, OK
}
