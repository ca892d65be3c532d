"""What evaluations count: one file a metric, and the names that all of them have."""

from progtrain.metrics.names import canonical as canonical
from progtrain.metrics.names import choosing as choosing
from progtrain.metrics.names import instead as instead
from progtrain.metrics.names import logged as logged
from progtrain.metrics.names import short as short
from progtrain.metrics.names import smaller_is_better as smaller_is_better
from progtrain.metrics.names import tested as tested
