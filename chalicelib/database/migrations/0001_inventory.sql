-- Creates the tables of the inventory. Existing tables stay as they are.
--
-- Reports use only these columns of `suppliers` and `beans`, and need no constraints. Only the import needs the unique
-- keys. It identifies a supplier by name, and a bean by supplier, type and product name. Names are compared exactly.

CREATE TABLE IF NOT EXISTS suppliers (
    id INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    name VARCHAR(255),
    address VARCHAR(255),
    city VARCHAR(255),
    state VARCHAR(255),
    email VARCHAR(255),
    phone VARCHAR(100),
    UNIQUE KEY suppliers_name (name)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS beans (
    id INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    supplier_id INT,
    type VARCHAR(255),
    product_name VARCHAR(255),
    price VARCHAR(255),
    description VARCHAR(255),
    quantity INT,
    UNIQUE KEY beans_identity (supplier_id, type, product_name)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Stores the result of the last S3 event of each uploaded inventory, so that an event that is delivered twice, or after
-- a newer event, changes nothing. `object_key` is the key in UTF-8, which S3 limits to 1,024 bytes. `outcome` is the
-- notification in JSON. `announced` is true if the notification was published.
CREATE TABLE IF NOT EXISTS uploads (
    object_key VARBINARY(1024) NOT NULL PRIMARY KEY,
    sequencer VARCHAR(64) NOT NULL DEFAULT '',
    etag VARCHAR(255),
    outcome MEDIUMTEXT,
    announced BOOLEAN NOT NULL DEFAULT TRUE,
    handled_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
