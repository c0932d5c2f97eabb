/** The questions and answers of the reports' REST operations. */

import type { Answer, Query } from '../types'

export type Report = Answer<'getReport'>
/** The figures of a bucket, of a person, or of everything. */
export type FigureRow = Report['total']
/** Durations in seconds; the values are null without any. */
export type Spread = FigureRow['reply']

/** A question to the server; the moments are ISO 8601. */
export type ReportQuery = Required<Pick<Query<'getReport'>, 'from' | 'to' | 'timezone' | 'by' | 'in_hours'>> & { basis?: Basis }
export type CellQuery = ReportQuery & Pick<Query<'listReportSessions'>, 'metric' | 'key' | 'cursor'>
export type By = NonNullable<Query<'getReport'>['by']>
export type Basis = NonNullable<Query<'getReport'>['basis']>
export type Metric = Query<'listReportSessions'>['metric']

export type CellItem = Answer<'listReportSessions'>['items'][number]
export type LiveFigures = Answer<'getLiveFigures'>
export type LiveStaff = LiveFigures['staff'][number]
