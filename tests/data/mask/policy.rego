# What is asked: the answer of a case.
package t

answer := data.cases[input.case].result if not data.cases[input.case].time

answer := time.now_ns() if data.cases[input.case].time
